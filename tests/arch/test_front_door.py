"""`mai --help` is quick and light; `import mai` promises names that exist."""

from __future__ import annotations

import resource
import subprocess
import sys

import mai

HEAVY = (
    *("numpy", "PIL", "onnxruntime", "rich", "torch", "accelerate", "onnx", "sklearn", "scipy", "datasets"),
    *("pandas", "pyarrow", "matplotlib", "tensorboard", "cv2", "pillow_heif", "asyncio", "multiprocessing"),
    *("fastapi", "starlette", "uvicorn", "watchfiles", "prometheus_client"),
)
HELP_S = 0.3


def test_help_answers_in_time() -> None:
    """The best of five, in processor seconds: the wall clock of a busy machine measures the others."""
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-m", "mai", "--help"], capture_output=True, text=True, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert "scan" in done.stdout
    assert min(seconds) < HELP_S, seconds


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from mai.cli import group\n"
        "group(['--help'], standalone_mode=False)\n"
        f"print('loaded:', *sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].strip() == "loaded:"


def test_plain_import_loads_nothing_heavy() -> None:
    code = f"import sys, mai; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.strip()


def test_exported_names_exist() -> None:
    assert list(mai.__all__) == sorted(mai.__all__)
    assert dir(mai) == sorted(mai.__all__)
    for name in mai.__all__:
        value = getattr(mai, name)
        assert name == "__version__" or value.__module__.startswith("mai."), name


def test_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(mai, "scann")
