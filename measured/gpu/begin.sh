# Start the training of all missing networks in the background, if it does not run: begin.sh SECONDS
. .gpu/env.sh
if [ -s /tmp/networks.pid ] && kill -0 "$(cat /tmp/networks.pid)" 2> /dev/null; then echo "networks.py runs"; exit 0; fi
cd /tmp/work
rm -f /tmp/mark
setsid nohup python3 .gpu/networks.py cuda 11 "$1" /tmp/mark --profile standard $W >> /tmp/log/networks 2>&1 < /dev/null &
echo $! > /tmp/networks.pid
