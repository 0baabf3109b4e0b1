import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """As the trainings that are killed have it: other numbers of threads sum in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
