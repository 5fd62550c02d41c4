import pytest

# The folder is no package: pytest puts it on sys.path.
from front_ends import WAYS, running_servers


@pytest.fixture(scope="session")
def servers():
    with running_servers() as running:
        yield running


@pytest.fixture(params=WAYS, ids=str)
def site(request, servers):
    """The application at the end of each way: direct, and behind every file of deploy/."""
    return servers.site(request.param)


@pytest.fixture(params=[way for way in WAYS if way.prefix], ids=str)
def site_below_prefix(request, servers):
    return servers.site(request.param)
