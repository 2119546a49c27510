"""Build the compiled kernels; a kernel that cannot be built is left out and its NumPy twin serves."""

from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

KERNELS = Path("pxtools/kernels")

extensions = [
    Extension(
        f"pxtools.kernels.{source.stem}",
        [str(source)],
        include_dirs=[numpy.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
        # NaN means "missing" here: never a flag that assumes finite numbers
        extra_compile_args=["-O3", "-fno-math-errno"],
        depends=[str(header) for header in sorted(KERNELS.glob("*.h"))],
        optional=True,
    )
    for source in sorted(KERNELS.glob("*.pyx"))
]

setup(
    ext_modules=cythonize(
        extensions,
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
        },
    )
    if extensions
    else []
)
