"""Memory kept between calls: large enough, apart for each thread, and never more than allowed."""

from threading import Thread

import torch

from ops import _scratch
from ops._scratch import scratch


def test_tensors_have_their_shapes_and_do_not_overlap():
    first, second = scratch(torch.float32, (3, 5), (7, 1, 2))
    first.fill_(1.0)
    second.fill_(2.0)
    assert (first.shape, second.shape) == ((3, 5), (7, 1, 2))
    assert first.sum() == 15.0
    assert second.sum() == 28.0


def test_memory_is_kept_for_the_next_call_and_grows_with_a_larger_one():
    (small,) = scratch(torch.float64, (10,))
    assert scratch(torch.float64, (10,))[0].data_ptr() == small.data_ptr()
    (large,) = scratch(torch.float64, (1 << 18,))
    large.fill_(1.0)
    assert scratch(torch.float64, (10,))[0].data_ptr() == large.data_ptr()


def test_more_than_is_kept_is_made_anew(monkeypatch):
    monkeypatch.setattr(_scratch, 'KEPT_BYTES', 4)
    _scratch.release()
    first, second = scratch(torch.uint8, (5,)), scratch(torch.uint8, (5,))
    assert first[0].data_ptr() != second[0].data_ptr()


def test_threads_do_not_share():
    seen = []
    (mine,) = scratch(torch.float32, (100,))
    thread = Thread(target=lambda: seen.append(scratch(torch.float32, (100,))[0]))
    thread.start()
    thread.join()
    assert seen[0].data_ptr() != mine.data_ptr()


def test_what_inference_has_made_serves_training():
    with torch.inference_mode():
        scratch(torch.float32, (1 << 19,))
    (memory,) = scratch(torch.float32, (1 << 19,))
    memory.zero_()
    assert not memory.is_inference()


def test_what_is_kept_can_be_given_back():
    scratch(torch.float32, (100,))
    assert vars(_scratch._kept)
    _scratch.release()
    assert not vars(_scratch._kept)


def test_uses_do_not_share():
    (first,), (second,) = scratch(torch.float32, (100,), use='a'), scratch(torch.float32, (100,), use='b')
    assert first.data_ptr() != second.data_ptr()
