"""SQL and Lua live as files beside the code that runs them; this reads them."""

from importlib.resources import files


def read_text(package: str, path: str) -> str:
    """The text of the file at ``path`` (for example ``sql/seat_map.sql``) inside ``package``."""
    return files(package).joinpath(path).read_text(encoding="utf-8")
