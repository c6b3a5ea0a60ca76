# Call 1: setup.sh early|late. Install, begin training (early), test.
set -u
[ -d .gpu1/wheels ] && { python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target /tmp/site .gpu1/wheels/*.whl || exit 1; }
bash .gpu/sync.sh
. .gpu/env.sh
cd /tmp/work
timeout 60 python3 -c "
import torch, robustutils.study, robustutils.labelling, robustutils.sliders
from robustutils import data
print(torch.__version__, torch.cuda.get_device_name(), len(data.load('mnist', 'test')), 'images')" || exit 1
timeout 45 bash .gpu/mps.sh
[ "$1" = early ] && bash .gpu/begin.sh 780
T="-q -p no:cacheprovider -W default --durations=5 --tb=short"
timeout 95 python3 -m pytest $T tests/test_gpu.py > /tmp/log/test_gpu 2>&1 &
timeout 95 python3 -m pytest $T -n 3 tests/test_attacks.py tests/test_training.py tests/test_golden.py > /tmp/log/test_more 2>&1 &
wait
tail -c 2500 /tmp/log/test_more; tail -c 6000 /tmp/log/test_gpu; tail -5 /tmp/log/networks; nvidia-smi --query-gpu=utilization.gpu,memory.used --format=csv,noheader
mkdir -p $OUT; cp /tmp/log/test_* /tmp/log/networks $OUT/ 2> /dev/null
exit 0
