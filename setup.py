"""What pyproject.toml cannot say: the folders of the installed package, and which requirements it has.

`core/` becomes `question_to_adapter`, with the shipped weights inside; nothing else of the checkout is installed.
"""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "question_to_adapter"
# All releases that are shipped, with their folders, and the sentence encoder.
WEIGHTS = sorted({".".join(file.parent.parts) for file in Path("weights").rglob("*") if file.is_file()})

lines = Path(__file__).with_name("requirements.txt").read_text(encoding="utf-8").splitlines()
setup(
    package_dir={NAME: "core", f"{NAME}.weights": "weights"},
    packages=[NAME, *(f"{NAME}.{room}" for room in (*find_packages("core"), *WEIGHTS))],
    package_data={"": [f"**/*.{kind}" for kind in ("css", "html", "jpg", "json", "md", "safetensors", "svg", "txt")]},
    exclude_package_data={"": ["*images.json"]},  # it says where pictures lie on the machine that builds
    install_requires=[line for line in lines if not line.startswith("#") and "checkout only" not in line],
)
