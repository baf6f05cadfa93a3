.PHONY: format type test test-fast check lock

format:
	uv run ruff format
	uv run ruff check --fix

type:
	uv run pyright

test:
	uv run pytest

test-fast:
	uv run pytest -m "not slow"

# What .ci/run does, without installing uv.
check:
	uv run ruff format --check
	uv run ruff check
	uv run pyright
	sh scripts/check_lock.sh
	uv run pytest

# After a change of pyproject.toml.
lock:
	uv lock
	uv export --quiet --all-groups --no-emit-project --no-header --no-annotate --output-file requirements.txt
