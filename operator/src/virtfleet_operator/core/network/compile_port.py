from typing import Any


def compile_port(*plans: Any) -> list[Any]:
    return list(plans)
