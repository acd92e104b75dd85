#!/usr/bin/env bash
# Add ScaNN's operations to TF Serving's sources, which are the working directory.
# Usage: link.sh SCANN, the folder of ScaNN's sources, which are changed too.
set -o errexit -o nounset -o pipefail

here=$(dirname "$0")
scann=$1
tensorflow="$scann/build_deps/server_tensorflow"
operations="$scann/scann/scann_ops/cc/BUILD.bazel"

# One library of the operations and their kernels; the Python extensions are not needed.
sed -i -e '/pybind11_bazel/d' -e '/^pybind_library(/,/^)/d' "$operations"
cat >> "$operations" <<'BUILD'

cc_library(
    name = "scann_ops_static",
    deps = [
        ":scann_ops",
        ":scann_ops_kernels",
    ],
    alwayslink = 1,
)
BUILD

# TF Serving's workspace knows ScaNN, the TensorFlow that ScaNN is to use, and what else it reads.
rm -f "$scann/MODULE.bazel" && touch "$scann/WORKSPACE"
mkdir -p "$tensorflow" && touch "$tensorflow/WORKSPACE"
cp "$here/tensorflow.BUILD" "$tensorflow/BUILD.bazel"
cat >> WORKSPACE <<BUILD

local_repository(name = "com_google_scann", path = "$scann")

local_repository(name = "local_config_tf", path = "$tensorflow")

load("@bazel_tools//tools/build_defs/repo:git.bzl", "git_repository")

git_repository(
    name = "cnpy",
    remote = "https://github.com/sammymax/cnpy.git",
    commit = "57184ee0db37cac383fc29175950747a46a8b512",
)

git_repository(
    name = "com_google_highway",
    remote = "https://github.com/google/highway.git",
    tag = "1.3.0",
)
BUILD

# The server links them as it does TensorFlow's own.
server=tensorflow_serving/model_servers/BUILD
sed -i 's|^SUPPORTED_TENSORFLOW_OPS = |&["@com_google_scann//scann/scann_ops/cc:scann_ops_static"] + |' \
    "$server"
grep -q scann_ops_static "$server"
