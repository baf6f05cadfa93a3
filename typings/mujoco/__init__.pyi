# MuJoCo's bindings are compiled and ship no types: take every name as it comes.
from typing import Any

def __getattr__(name: str) -> Any: ...
