from typing import Any


def compile_switch(*plans: Any) -> list[Any]:
    return list(plans)
