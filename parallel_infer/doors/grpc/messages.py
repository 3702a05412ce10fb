"""The messages of the gRPC door, made from field names and numbers in a pool of descriptors of their own.

No generated code and no compiler: names, numbers and types are facts of the published protocol (KServe's Open
Inference Protocol, Triton's extensions to it, gRPC's health protocol). The pool is private, so that a process which
also imports another client's generated messages of the same names holds both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_SCALARS: dict[str, Any] = {
    "double": 1,
    "float": 2,
    "int64": 3,
    "uint64": 4,
    "int32": 5,
    "bool": 8,
    "string": 9,
    "bytes": 12,
    "uint32": 13,
}
_MESSAGE: Any = 11
_ENUM: Any = 14
_OPTIONAL: Any = 1
_REPEATED: Any = 3

# One line a message: its name, then `[*]type name number` for each field. `*` is repeated, `<type>` a map from text
# to that type, `@` an enum, and `|` puts the field into the message's oneof. Other types are messages of the package.
_INFERENCE = """
ServerLiveRequest:
ServerLiveResponse: bool live 1
ServerReadyRequest:
ServerReadyResponse: bool ready 1
ModelReadyRequest: string name 1, string version 2
ModelReadyResponse: bool ready 1
ServerMetadataRequest:
ServerMetadataResponse: string name 1, string version 2, *string extensions 3
ModelMetadataRequest: string name 1, string version 2
TensorMetadata: string name 1, string datatype 2, *int64 shape 3
ModelMetadataResponse: string name 1, *string versions 2, string platform 3, *TensorMetadata inputs 4, *TensorMetadata outputs 5
InferParameter: |bool bool_param 1, |int64 int64_param 2, |string string_param 3, |double double_param 4, |uint64 uint64_param 5
InferTensorContents: *bool bool_contents 1, *int32 int_contents 2, *int64 int64_contents 3, *uint32 uint_contents 4, *uint64 uint64_contents 5, *float fp32_contents 6, *double fp64_contents 7, *bytes bytes_contents 8
InferInputTensor: string name 1, string datatype 2, *int64 shape 3, <InferParameter> parameters 4, InferTensorContents contents 5
InferRequestedOutputTensor: string name 1, <InferParameter> parameters 2
ModelInferRequest: string model_name 1, string model_version 2, string id 3, <InferParameter> parameters 4, *InferInputTensor inputs 5, *InferRequestedOutputTensor outputs 6, *bytes raw_input_contents 7
InferOutputTensor: string name 1, string datatype 2, *int64 shape 3, <InferParameter> parameters 4, InferTensorContents contents 5
ModelInferResponse: string model_name 1, string model_version 2, string id 3, <InferParameter> parameters 4, *InferOutputTensor outputs 5, *bytes raw_output_contents 6
ModelStreamInferResponse: string error_message 1, ModelInferResponse infer_response 2
ModelStatisticsRequest: string name 1, string version 2
StatisticDuration: uint64 count 1, uint64 ns 2
InferStatistics: StatisticDuration success 1, StatisticDuration fail 2, StatisticDuration queue 3, StatisticDuration compute_input 4, StatisticDuration compute_infer 5, StatisticDuration compute_output 6, StatisticDuration cache_hit 7, StatisticDuration cache_miss 8
ModelStatistics: string name 1, string version 2, uint64 last_inference 3, uint64 inference_count 4, uint64 execution_count 5, InferStatistics inference_stats 6
ModelStatisticsResponse: *ModelStatistics model_stats 1
RepositoryIndexRequest: string repository_name 1, bool ready 2
ModelIndex: string name 1, string version 2, string state 3, string reason 4
RepositoryIndexResponse: *ModelIndex models 1
ModelRepositoryParameter: |bool bool_param 1, |int64 int64_param 2, |string string_param 3, |bytes bytes_param 4
RepositoryModelLoadRequest: string repository_name 1, string model_name 2, <ModelRepositoryParameter> parameters 3
RepositoryModelLoadResponse:
RepositoryModelUnloadRequest: string repository_name 1, string model_name 2, <ModelRepositoryParameter> parameters 3
RepositoryModelUnloadResponse:
ModelConfigRequest: string name 1, string version 2
ModelInput: string name 1, @DataType data_type 2, @Format format 3, *int64 dims 4
ModelOutput: string name 1, @DataType data_type 2, *int64 dims 3, string label_filename 4
ModelInstanceGroup: string name 1, int32 count 2, @Kind kind 4
Latest: uint32 num_versions 1
ModelVersionPolicy: Latest latest 1
ModelDynamicBatching:
ModelParameter: string string_value 1
ModelConfig: string name 1, string platform 2, ModelVersionPolicy version_policy 3, int32 max_batch_size 4, *ModelInput input 5, *ModelOutput output 6, *ModelInstanceGroup instance_group 7, ModelDynamicBatching dynamic_batching 11, <ModelParameter> parameters 14, string backend 17
ModelConfigResponse: ModelConfig config 1
"""  # noqa: E501 - a message a line
_ENUMS = {
    "DataType": (
        *("TYPE_INVALID", "TYPE_BOOL", "TYPE_UINT8", "TYPE_UINT16", "TYPE_UINT32", "TYPE_UINT64", "TYPE_INT8"),
        *("TYPE_INT16", "TYPE_INT32", "TYPE_INT64", "TYPE_FP16", "TYPE_FP32", "TYPE_FP64", "TYPE_STRING"),
    ),
    "Format": ("FORMAT_NONE", "FORMAT_NHWC", "FORMAT_NCHW"),
    "Kind": ("KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"),
}
_HEALTH = """
HealthCheckRequest: string service 1
HealthCheckResponse: @ServingStatus status 1
"""
_HEALTH_ENUMS = {"ServingStatus": ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")}
_FIELD = re.compile(r"(\|?)([*@]?)(<?)(\w+)>? (\w+) (\d+)")


def _file(package: str, text: str, enums: Mapping[str, tuple[str, ...]]) -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, values in enums.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for line in text.strip().splitlines():
        name, _, fields = line.partition(":")
        _add_message(file, package, name.strip(), fields)
    return file


def _add_message(file: descriptor_pb2.FileDescriptorProto, package: str, name: str, fields: str) -> None:
    message = file.message_type.add(name=name)
    for field in filter(None, map(str.strip, fields.split(","))):
        found = _FIELD.fullmatch(field)
        assert found is not None, field
        choice, mark, is_map, kind, field_name, number = found.groups()
        described = message.field.add(name=field_name, number=int(number))
        described.label = _REPEATED if mark == "*" or is_map else _OPTIONAL
        if choice:
            if not message.oneof_decl:
                message.oneof_decl.add(name="parameter_choice")
            described.oneof_index = 0
        if is_map:
            described.type = _MESSAGE
            described.type_name = f".{package}.{name}.{_add_entry(message, package, field_name, kind)}"
        elif mark == "@":
            described.type, described.type_name = _ENUM, f".{package}.{kind}"
        elif kind in _SCALARS:
            described.type = _SCALARS[kind]
        else:
            described.type, described.type_name = _MESSAGE, f".{package}.{kind}"


def _add_entry(message: descriptor_pb2.DescriptorProto, package: str, field: str, kind: str) -> str:
    """The nested type that a map is on the wire."""
    entry = message.nested_type.add(name="".join(map(str.capitalize, field.split("_"))) + "Entry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=_OPTIONAL, type=_SCALARS["string"])
    entry.field.add(name="value", number=2, label=_OPTIONAL, type=_MESSAGE, type_name=f".{package}.{kind}")
    return entry.name


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file("inference", _INFERENCE, _ENUMS))
_pool.Add(_file("grpc.health.v1", _HEALTH, _HEALTH_ENUMS))


def message(name: str) -> Any:
    """The class of a message, "inference.ModelInferRequest" for one."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(name))


def every_message(package: str) -> dict[str, Any]:
    """The descriptors of a package's messages, by name."""
    return dict(_pool.FindFileByName(f"{package}.proto").message_types_by_name)
