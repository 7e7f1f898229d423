"""The command `virtfleet-operator`."""

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from kubernetes.aio.config import ConfigException

from virtfleet_operator.application import run
from virtfleet_operator.enrolment.errors import AuthorityError
from virtfleet_operator.kube.errors import KubeError
from virtfleet_operator.logs import configure_logging
from virtfleet_operator.settings import SettingsError, read_settings


def main() -> None:
    """Run the operator; the exit status is 0 only after it was asked to stop."""
    parser = argparse.ArgumentParser(
        prog="virtfleet-operator", description="Runs virtual machines on a fleet of nodes."
    )
    parser.add_argument("--config", type=Path, required=True, help="YAML file with the settings")
    parser.add_argument("--address", help="IP address of this process, which its Services lead to while it leads")
    parser.add_argument("--verbose", action="store_true", help="log every detail")
    arguments = parser.parse_args()
    configure_logging(logging.DEBUG if arguments.verbose else logging.INFO)
    try:
        asyncio.run(run(read_settings(arguments.config, arguments.address)))
    except (SettingsError, ConfigException, AuthorityError) as error:
        sys.exit(f"virtfleet-operator: {error}")
    except KubeError as error:
        logging.getLogger(__name__).critical("Ending", extra={"action": "end", "reason": str(error)})
        sys.exit(1)


if __name__ == "__main__":
    main()
