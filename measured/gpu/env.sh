export PYTHONPATH=/tmp/work:/tmp/site:/tmp/work/.gpu/stubs ROBUSTUTILS_DATA=/tmp/data ROBUSTUTILS_CACHE=/tmp/cache
export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore MPLBACKEND=Agg MPLCONFIGDIR=/tmp/mpl
[ -s /tmp/mps.env ] && . /tmp/mps.env
W="-p n_seeds_large 3 -p epochs_rfgsm 100"
EAT="ensemble_adversarial_training --profile standard $W"
