from typing import Any


def compile_group(*plans: Any) -> list[Any]:
    return list(plans)
