"""A checkpoint as an ONNX file or an OpenVINO one."""
