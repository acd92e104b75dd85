"""Those of TF Serving's configuration messages that its Python package leaves out.

The names and numbers of the fields are those of `session_bundle_config.proto` and
`monitoring_config.proto` in TF Serving's sources.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

Field = descriptor_pb2.FieldDescriptorProto
INT64 = ".google.protobuf.Int64Value"
BATCHING = {
    "max_batch_size": (1, INT64),
    "batch_timeout_micros": (2, INT64),
    "max_enqueued_batches": (3, INT64),
    "num_batch_threads": (4, INT64),
    "pad_variable_length_inputs": (7, Field.TYPE_BOOL),
}
PROMETHEUS = {"enable": (1, Field.TYPE_BOOL), "path": (2, Field.TYPE_STRING)}
MONITORING = {"prometheus_config": (1, ".tensorflow.serving.PrometheusConfig")}
MESSAGES = {
    "BatchingParameters": BATCHING,
    "PrometheusConfig": PROMETHEUS,
    "MonitoringConfig": MONITORING,
}


def message_class(name: str) -> Any:
    """The class of one of `MESSAGES`."""
    file = descriptor_pb2.FileDescriptorProto(
        name="tf_serving_test.proto",
        package="tensorflow.serving",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    for message, fields in MESSAGES.items():
        added = file.message_type.add(name=message)
        for field, (number, kind) in fields.items():
            declared = added.field.add(name=field, number=number, label=Field.LABEL_OPTIONAL)
            if isinstance(kind, str):
                declared.type, declared.type_name = Field.TYPE_MESSAGE, kind
            else:
                declared.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.serving.{name}"))
