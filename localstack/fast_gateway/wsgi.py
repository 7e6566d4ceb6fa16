"""The application that granian's workers serve. Imported once before they fork, so each starts warm."""

from aws_lambda_powertools import Logger

from fast_gateway.gateway import Gateway
from fast_gateway.settings import read_template

Logger(service="fast_gateway")  # every line of the logger of this name becomes one line of JSON
app = Gateway(read_template())
