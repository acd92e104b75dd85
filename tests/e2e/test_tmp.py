from serving.directions import DIRECTIONS
import pytest


@pytest.mark.parametrize("kind", ["exact", "scann"])
def test_x(kind, request, ask_fresh):
    p = request.getfixturevalue(kind)
    import importlib, sys

    C = type(p).__module__
    from dataclasses import make_dataclass

    Call = sys.modules[C].Call
    calls = {}
    for n, d in DIRECTIONS.items():
        calls[n] = Call(model=n, inputs=p.packed(d.source, [0, 1, 2]))
        calls[n + "v1"] = Call(model=n, inputs=p.packed(d.source, [0, 1, 2]), in_session=True)
    print(C)
    import time

    t = time.perf_counter()
    f = ask_fresh(p, calls)
    print(time.perf_counter() - t)
    print(f.custom)
    for k, v in f.answers.items():
        print(k, v)
