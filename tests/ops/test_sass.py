"""The kernels' machine code for Hopper keeps to its budgets, and docs/kernels.md shows it."""

import re

import pytest

import doc_table
import sass
from sass import Kernel

# Of each kernel at least so many blocks fit a multiprocessor, and 4 neighbouring map pixels are
# loaded and stored at once, as 16 bytes (float32) or 8 (bfloat16, float16). Counted are
# instructions: the last two numbers are those of loads and stores.
BUDGETS = {
    "aggregate_heatmaps_kernel": (3, 8, 1),
    "find_peaks_kernel": (6, 0, 0),
    "group_tags_kernel": (14, 0, 0),
    "heatmap_mse_kernel": (4, 1, 0),
    "heatmap_mse_kernel<double, double>": (2, 2, 0),
    "heatmap_mse_backward_kernel": (4, 1, 1),
    "heatmap_mse_backward_kernel<double, double>": (2, 2, 2),
    "mean_error_kernel": (32, 0, 0),
    "merge_peaks_kernel": (8, 0, 0),
    "read_peaks_kernel": (9, 0, 0),
    "refine_people_kernel": (3, 0, 0),
    "render_heatmaps_kernel": (5, 0, 1),
    "render_heatmaps_kernel<double>": (3, 0, 2),
    "tile_bounds_kernel": (5, 0, 0),
}


@pytest.fixture(scope="module")
def kernels() -> dict[str, Kernel]:
    missing = {"nvcc", "cuobjdump", "nvdisasm"} - sass.tools().keys()
    if missing:
        pytest.skip(f"needs {' and '.join(sorted(missing))}, not here (tests/ops/sass.py)")
    return sass.disassemble()


def test_nothing_lies_in_local_memory(kernels):
    for name, kernel in kernels.items():
        spilt = {what: n for what, n in kernel.instructions.items() if what[:3] in ("LDL", "STL")}
        assert kernel.local == 0, name
        assert not spilt, name


def test_kernels_keep_to_their_budgets(kernels):
    assert {name.split("<")[0] for name in kernels} == {name.split("<")[0] for name in BUDGETS}
    for name, kernel in kernels.items():
        blocks, loads, stores = BUDGETS.get(name) or BUDGETS[name.split("<")[0]]
        narrow = "BFloat16" in name or "Half" in name
        written = "heatmap_mse_backward" in name and narrow  # other results are float32
        assert kernel.blocks_per_sm >= blocks, (name, kernel)
        assert kernel.accesses("LDG")[narrow] >= loads, (name, kernel)
        assert kernel.accesses("STG")[written] >= stores, (name, kernel)


def test_the_document_shows_them(kernels):
    made_by = re.findall(r"nvcc (\d+\.\d+\.\d+)", doc_table.DOC.read_text())[0]
    if sass.nvcc_version() != made_by:
        pytest.skip(f"the table is of nvcc {made_by}, this is {sass.nvcc_version()}")
    made = doc_table.markdown(sass.COLUMNS, sass.table(kernels))
    assert doc_table.written(sass.COLUMNS) == made, "python tests/ops/sass.py --write"


@pytest.mark.parametrize(
    ("threads", "registers", "shared", "blocks"),
    [
        (256, 32, 0, 8),  # 64 warps
        (256, 40, 0, 6),  # 12 warps of 1280 registers in each quarter of the register file
        (256, 128, 0, 2),
        (1024, 64, 0, 1),
        (32, 16, 0, 32),  # the most there may be
        (256, 32, 100 * 1024, 2),
    ],
)
def test_blocks_per_multiprocessor(threads, registers, shared, blocks):
    """As NVIDIA's occupancy calculator has them for compute capability 9.0."""
    assert Kernel(threads, registers, shared).blocks_per_sm == blocks


def test_machine_code_is_read():
    """On an excerpt of what cuobjdump prints."""
    resources = " Function _Zk:\n  REG:47 STACK:8 SHARED:3076 LOCAL:4 CONSTANT[0]:936"
    elf = "\n.nv.info._Zk\n\tAttribute:\tEIATTR_MAX_THREADS\n\tFormat:\tEIFMT_SVAL\n"
    elf += "\tValue:\t0x80 0x2 0x1 \n"
    sass_text = """
		Function : _Zk
        /*0010*/                   LDC R5, c[0x0][0x3a4] ;      /* 0x0000e90000057b82 */
        /*0020*/              @!P0 LDG.E.128.CONSTANT R4, [R2.64] ;
        /*0030*/                   LDG.E.U16 R4, [R2.64] ;
        /*0040*/              @P1  LDG.E R4, [R2.64] ;
        /*0050*/                   STL.64 [R1], R4 ;
        /*0060*/                   STG.E.64 desc[UR4][R2.64], R4 ;
"""
    (kernel,) = sass.parse(resources, elf, sass_text).values()
    assert (kernel.threads, kernel.registers, kernel.shared, kernel.local) == (256, 47, 3076, 12)
    assert kernel.accesses("LDG") == [1, 0, 1, 1]
    assert kernel.accesses("STG") == [0, 1, 0, 0]
    assert kernel.instructions["STL.64"] == 1
