#!/bin/sh
# prune.sh FOLDER PROVIDER OPENVINO: removes from FOLDER/site-packages what no part of the server loads.
set -eu
cd "$1"

# Devices that the server never asks OpenVINO for; 52 MB.
rm -f onnxruntime_ep_openvino/libopenvino_intel_gpu_plugin.so onnxruntime_ep_openvino/libopenvino_intel_npu_plugin.so
[ "$3" = yes ] || rm -rf onnxruntime_ep_openvino onnxruntime_ep_openvino-*.dist-info
# ONNX Runtime a second time, for programs in C; Python's module has it all. 35 MB.
[ "$2" = gpu ] || rm -f onnxruntime/capi/libonnxruntime.so*
# What these packages test themselves with.
rm -rf onnx/backend/test
find numpy -type d -name tests -prune -exec rm -rf {} +
find . -type d -name __pycache__ -prune -exec rm -rf {} +
