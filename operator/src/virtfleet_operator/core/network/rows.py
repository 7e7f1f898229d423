from typing import Any

Row = Any
