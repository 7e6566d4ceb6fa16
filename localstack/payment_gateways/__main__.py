"""Command line of a simulated payment gateway."""

import argparse
import asyncio
import re
import sys
from pathlib import Path

from aws_lambda_powertools import Logger

from payment_gateways.app import Gateway
from payment_gateways.book import Book
from payment_gateways.server import GatewayServer


def main() -> int:
    args = _parse_args()
    # Formats every line of the logger of this name, which the other modules of the package write to, as JSON.
    logger = Logger(service="payment_gateways")
    logger.append_keys(gateway=args.name)
    book = Book(args.book / f"{args.name}.sqlite3")
    gateway = Gateway(args.name, book)
    server = GatewayServer(gateway, args.port, args.book / f"{args.name}.panel")
    try:
        asyncio.run(server.run_until_stopped())
    except OSError as e:
        logger.error("cannot listen", extra={"port": args.port, "error": str(e)})
        return 1
    finally:
        book.close()
    logger.info("stopped")
    return 0


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="payment_gateways", description="A simulated payment gateway on 127.0.0.1. No money moves."
    )
    parser.add_argument("--name", type=_name, required=True, help="what it calls itself, such as danal or payco")
    parser.add_argument("--port", type=int, required=True, help="public port")
    parser.add_argument("--book", type=Path, required=True, metavar="DIR", help="folder of its book")
    return parser.parse_args()


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", text):
        raise argparse.ArgumentTypeError("lower case letters, digits and hyphens")
    return text


if __name__ == "__main__":
    sys.exit(main())
