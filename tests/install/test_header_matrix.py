"""tools/header_matrix.py: csrc compiles against every torch from 2.10 on."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from dhn.base.native import CPU_PARTS, CUDA_PARTS, source_hash
from locks import built_once

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tools" / "header_matrix.py"
WHEELS = ROOT / "build" / "torch-wheels"


@pytest.mark.slow
def test_the_oldest_and_the_newest_torch():
    """Compiles again only what has changed since it was right."""
    wheels = sorted(WHEELS.glob("torch-*.whl"))
    if not wheels:
        pytest.skip(f"needs wheels of torch in {WHEELS}: {PROGRAM} --help says how to get them")
    names = [wheel.name for wheel in wheels]
    sources = source_hash(ROOT / "csrc", *CPU_PARTS, *CUDA_PARTS)
    told = f"{names} {sources} {(ROOT / 'setup.py').read_text()} {PROGRAM.read_text()}"
    digest = hashlib.sha256(told.encode()).hexdigest()[:16]

    def run(path: Path) -> None:
        command = [sys.executable, PROGRAM, "--ends", "--quick"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        path.write_text(done.stdout)

    built_once(ROOT / "build" / "header-matrix" / digest, run)


def test_commands_are_those_of_setup(monkeypatch):
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    import header_matrix

    nvcc = header_matrix.find_nvcc()
    commands = header_matrix.setup_commands(nvcc)
    assert list(commands) == (["_C", "_C_cuda"] if nvcc else ["_C"])
    for command in commands.values():
        words = command.split()
        assert {"@SOURCE@", "@OBJECT@", "-I@INCLUDE@", "-O3"} <= set(words)
        assert "-DTORCH_TARGET_VERSION=0x020a000000000000" in words
    assert "-ffp-contract=off" in commands["_C"].split()


def test_an_old_header_a_missing_name_and_no_wheel_are_told(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    import header_matrix

    source = tmp_path / "one.cpp"
    source.write_text('#include "old.h"\nextern "C" int torch_new();\nint use() { return NEW; }\n')
    monkeypatch.setitem(header_matrix.SOURCES, "_C", [source])
    command = "g++ -fPIC -O3 -I@INCLUDE@ -c @SOURCE@ -o @OBJECT@"
    (tmp_path / "old.h").write_text("#define NEW torch_new()\n")
    assert header_matrix.undefined_names("_C", command, tmp_path, tmp_path) == {"torch_new"}
    (tmp_path / "old.h").write_text("")
    with pytest.raises(header_matrix.CompileError, match="NEW"):
        header_matrix.undefined_names("_C", command, tmp_path, tmp_path)
    run = subprocess.run([sys.executable, PROGRAM, tmp_path], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr == f"{tmp_path}: no wheel torch-*.whl; --help shows how to get them\n"
