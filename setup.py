"""Build the compiled kernels; a kernel that cannot be built is left out and its NumPy twin serves."""

import os
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

KERNELS = Path("pxtools/kernels")


class BuildKernels(build_ext):
    """Compile side by side; a kernel that fails leaves no library, not even an older one that would hide its twin."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()
        self.is_in_tree = self.inplace

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except Exception:
            Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
            if self.is_in_tree:
                (KERNELS / Path(self.get_ext_filename(ext.name)).name).unlink(missing_ok=True)
            raise  # a warning only: the kernels are optional


kernels = cythonize(
    [
        Extension(
            f"pxtools.kernels.{source.stem}",
            [str(source)],
            include_dirs=[numpy.get_include()],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
            # NumPy's own normal deviates, so that a twin's Generator gives the same stream
            library_dirs=[str(Path(numpy.get_include()).parents[1] / "random" / "lib")],
            libraries=["npyrandom", "m"],
            # NaN means "missing" here: never a flag that assumes finite numbers; and no fused multiply-add, which a
            # twin cannot have
            extra_compile_args=["-O3", "-g0", "-fno-math-errno", "-ffp-contract=off"],
            depends=[str(header) for header in sorted(KERNELS.glob("*.h"))],
        )
        for source in sorted(KERNELS.glob("*.pyx"))
    ],
    compiler_directives={
        "language_level": 3,
        "boundscheck": False,
        "wraparound": False,
        "cdivision": True,
        "initializedcheck": False,
    },
)
for kernel in kernels:
    kernel.optional = True  # cythonize forgets it when it is given to Extension

setup(cmdclass={"build_ext": BuildKernels}, ext_modules=kernels)
