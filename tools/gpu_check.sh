#!/usr/bin/env bash
# What only a GPU shows, in under ten minutes: CUDA paths against the CPU's numbers, half precision, device waits, and what a
# full-size step costs.   usage: tools/gpu_check.sh [FOLDER for the results, gpu_check by default]
set -uo pipefail
out=$(mkdir -p "${1:-gpu_check}" && cd "${1:-gpu_check}" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
$python -c "import torch; print(torch.__version__, torch.cuda.get_device_name())" | tee "$out/machine.txt"
$python -m pytest -p no:cacheprovider tests/test_gpu.py -q -s 2>&1 | tee "$out/tests.txt" | tail -25
for config in faster_rcnn retinanet; do
  for batch in 2 8; do
    for amp in '' --amp; do
      # what a faster teacher saves; at 8 images what is paid at least, too
      variants='alone live bf16 channels_last fast floor'
      [ "$batch" = 8 ] && variants='alone live bf16 floor'
      name=${config}_$batch${amp#-}
      echo "== $config, $batch images of 800x1333 ${amp:-fp32}"
      $python tools/benchmark.py "configs/ckd/ckd_${config}_r101-r50_fpn_1x_coco.py" --size 800x1333 --batch $batch $amp \
        --rounds "${ROUNDS:-10}" --proposals fixed --variants $variants --markdown --out "$out/$name.json" 2>"$out/$name.log" || tail -3 "$out/$name.log"
    done
  done
done
