# NVIDIA MPS for all that start after this, if it works here; no setting of the card is touched.
: > /tmp/mps.env
command -v nvidia-cuda-mps-control > /dev/null || { echo "no MPS here"; exit 0; }
mkdir -p /tmp/mps /tmp/mps-log
export CUDA_MPS_PIPE_DIRECTORY=/tmp/mps CUDA_MPS_LOG_DIRECTORY=/tmp/mps-log
setsid timeout 10 nvidia-cuda-mps-control -d < /dev/null > /tmp/log/mps 2>&1 || { echo "MPS does not start"; exit 0; }
if timeout 20 python3 -c "import torch; x = torch.ones(512, 512, device='cuda'); assert (x @ x).sum().item() == 512**3" 2>> /tmp/log/mps \
   && [ -n "$(echo get_server_list | timeout 5 nvidia-cuda-mps-control)" ]; then
  echo "export CUDA_MPS_PIPE_DIRECTORY=/tmp/mps CUDA_MPS_LOG_DIRECTORY=/tmp/mps-log" > /tmp/mps.env
  echo "MPS works"
else
  echo quit | timeout 5 nvidia-cuda-mps-control > /dev/null 2>&1
  echo "MPS does not work here"; tail -3 /tmp/log/mps
fi
