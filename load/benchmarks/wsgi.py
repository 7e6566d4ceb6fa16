"""The application that the benchmarks' gateway serves."""

from benchmarks.gateway import StepsAndFloors

app = StepsAndFloors()
