# Call 2: long.sh BOX. All in parallel for BOX seconds, the last 40 for stopping and packing.
BOX=$1
NOW=$(date +%s)
bash .gpu/sync.sh
bash .gpu/begin.sh $((BOX - 60))
. .gpu/env.sh
cd /tmp/work
END=$((BOX - 40 - $(date +%s) + NOW))
P=""
start() { name=$1; shift; setsid nohup python3 .gpu/chapter.py "$@" --seconds $END --out /tmp/out/$name.safetensors > /tmp/log/$name 2>&1 < /dev/null & P="$P $!"; }
start eat $EAT --wait /tmp/mark
start eat_1 $EAT --wait /tmp/mark --shuffle 1
start eat_2 $EAT --wait /tmp/mark --shuffle 2
B="blind_spot --profile standard --last manifolds.divergences --last BS-T1 --last spread"
start bs_mnist $B -p dataset mnist
start bs_fashion $B -p dataset fashion_mnist
while [ $(($(date +%s) - NOW)) -lt $((BOX - 39)) ]; do
  sleep 1
  a=0; for p in $P; do kill -0 $p 2> /dev/null && a=1; done
  [ $a = 0 ] && break
done
kill -TERM $P $(cat /tmp/networks.pid) 2> /dev/null
for i in 1 2 3 4 5 6 7 8 9 10 11; do a=0; for p in $P; do kill -0 $p 2> /dev/null && a=1; done; [ $a = 0 ] && break; sleep 1; done
kill -KILL $P 2> /dev/null
timeout 12 python3 .gpu/pack.py outcomes /tmp/cache --parts 2 --name outcomes --more /tmp/out/*.safetensors /tmp/log/*
timeout 12 python3 .gpu/pack.py models /tmp/cache --parts 2 --name models
for f in networks eat bs_mnist bs_fashion; do echo "== $f"; tail -c 1800 /tmp/log/$f; done
exit 0
