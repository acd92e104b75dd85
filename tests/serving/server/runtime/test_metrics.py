from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from serving.server.runtime.metrics import Metrics


def read(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Every sample of the text, by its name and the values of its labels, sorted by theirs."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def test_requests_are_counted_by_surface_model_and_code() -> None:
    metrics = Metrics()
    for _ in range(2):
        metrics.count(surface="rest", model="u2i", code="OK")
    metrics.count(surface="grpc", model="u2i", code="NOT_FOUND")
    found = read(metrics)
    assert found["fm_recall_requests_total", "OK", "u2i", "rest"] == 2
    assert found["fm_recall_requests_total", "NOT_FOUND", "u2i", "grpc"] == 1


def test_names_that_clients_make_up_do_not_become_labels() -> None:
    metrics = Metrics()
    for number in range(100):
        metrics.count(surface="rest", model=f"model {number}", code="NOT_FOUND")
    assert read(metrics)["fm_recall_requests_total", "NOT_FOUND", "unknown", "rest"] == 100
    assert b"model 7" not in metrics.text()


def test_times_batches_changes_and_versions_are_told() -> None:
    metrics = Metrics()
    metrics.answered(0.0015, model="u2i", direction="u2i")
    metrics.computed(3)
    metrics.changed("item", upserted=2, deleted=1)
    metrics.loaded(7)
    metrics.refused()
    metrics.watch_queue(lambda: 5)
    metrics.watch_index({"u2i": 10, "i2i": 10, "u2u": 4, "i2u": 4}.__getitem__)
    found = read(metrics)
    assert found["fm_recall_answer_seconds_bucket", "u2i", "0.001", "u2i"] == 0
    assert found["fm_recall_answer_seconds_bucket", "u2i", "0.002", "u2i"] == 1
    assert found["fm_recall_batch_sources_sum",] == 3
    assert found["fm_recall_changes_total", "upsert", "item"] == 2
    assert found["fm_recall_changes_total", "delete", "item"] == 1
    assert found["fm_recall_version",] == 7
    assert found["fm_recall_loads_total",] == 1
    assert found["fm_recall_refused_versions_total",] == 1
    assert found["fm_recall_queue_sources",] == 5
    assert found["fm_recall_index_size", "u2u"] == 4


def test_two_hosts_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.count(surface="rest", model="u2i", code="OK")
    assert ("fm_recall_requests_total", "OK", "u2i", "rest") not in read(other)
