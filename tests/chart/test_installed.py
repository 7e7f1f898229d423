"""The chart on a real API server, with an operator that has the chart's settings and rights."""

import asyncio
import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from polling import until_true
from virtfleet_dev.control_plane import ControlPlane, free_port
from virtfleet_dev.helm import Helm, chart
from virtfleet_dev.kube_tools import Release, kube_tools
from virtfleet_dev.kubectl import Kubectl
from virtfleet_dev.paths import program
from virtfleet_dev.process import Program
