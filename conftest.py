"""Shape and type annotations are checked while tests run, and only then; seeds are fixed."""

from jaxtyping import install_import_hook

# before zeroloss is imported anywhere; doctests of src/ are collected under the same hook
install_import_hook("zeroloss", "beartype.beartype")

import os  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

settings.register_profile("zeroloss", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("zeroloss")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Curves of this run alone, outside the user's own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZEROLOSS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets that is not part of the project."""
    place = Path(os.environ.get("ZEROLOSS_DATA", Path(__file__).parents[1] / "shared" / "data"))
    if not place.is_dir():
        pytest.skip(f"no data folder at {place}; set ZEROLOSS_DATA")
    return place
