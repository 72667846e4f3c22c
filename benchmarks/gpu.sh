#!/usr/bin/env bash
# Builds the CUDA miner, checks it and times it, on a machine with a GPU, nvcc and PyTorch: bash benchmarks/gpu.sh
# Leaves everything it says in build/gpu/log, and the times in docs/gpu.md.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p build/gpu
exec > >(tee build/gpu/log) 2>&1

step() { printf '\n== %s\n' "$*"; }

step "the machine"
nvidia-smi
nvcc --version

step "an environment, on top of what is installed; TensorFlow is not needed"
[ -x build/gpu/venv/bin/python ] || python3 -m venv --system-site-packages build/gpu/venv
export PATH="$PWD/build/gpu/venv/bin:$PATH"
pip install -q numpy scipy pybind11 'cython>=3.1' cython-cmake cmake ninja pytest pytest-benchmark hypothesis torch

step "the extension modules, into facenet_fast/"
cmake -S . -B build/gpu/modules -G Ninja -DFACENET_FAST_CUDA=ON -DCMAKE_BUILD_TYPE=Release \
  -DPython_EXECUTABLE="$(command -v python)" -Dpybind11_DIR="$(python -m pybind11 --cmakedir)" \
  -DCMAKE_MODULE_PATH="$(python -c 'import cython_cmake; print(cython_cmake.__path__[0] + "/cmake")')"
cmake --build build/gpu/modules
cmake --install build/gpu/modules --prefix .
python -c "from facenet_fast.mining.devices import load_cuda; print(load_cuda().devices())"

step "the contract: the same triplets as the specification's and the CPU's"
python -m pytest -q -m cuda tests/mining/test_cuda.py

step "native tests on the device"
cmake -S . -B build/gpu/native -G Ninja -DFACENET_FAST_PYTHON=OFF -DFACENET_FAST_TESTS=ON -DFACENET_FAST_CUDA=ON \
  -DCMAKE_BUILD_TYPE=Release
cmake --build build/gpu/native --target test_cuda
build/gpu/native/csrc/tests/test_cuda

if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck synccheck initcheck; do
    step "compute-sanitizer: $tool"
    compute-sanitizer --tool "$tool" --error-exitcode 1 build/gpu/native/csrc/tests/test_cuda 2 ||
      echo "FAILED: $tool" | tee -a build/gpu/failed
  done
fi

step "times"
python -m pytest -q benchmarks/bench_cuda.py
python -m benchmarks.cuda --write

if command -v ncu >/dev/null; then
  step "where the time goes: 450 identities x 40 images x 128 numbers, trained"
  ncu --set basic --target-processes all python - <<'PY' || true
from benchmarks.regimes import pool
from facenet_fast import mine_triplets
rows, labels = pool(450, 40, 128, "trained")
mine_triplets(rows, labels, strategy="vgg_face", seed=1, device="cuda")
PY
fi
[ ! -e build/gpu/failed ] || exit 1
step "all done; the table is in docs/gpu.md"
