# In the tree that travels: bash /tmp/ha/.gpu/stage.sh out | back
# out: what is large and not needed moves to /tmp/gpu-aside; .gpu, .gpu1 and .gpu2 are made, ignored by git. back: undoes it.
set -eu
HERE=$(cd "$(dirname "$0")" && pwd)
ASIDE=/tmp/gpu-aside
case $1 in
out)
  [ ! -e $ASIDE ] || { echo "$ASIDE is there already"; exit 1; }
  grep -qx '/.gpu\*/' .git/info/exclude || echo '/.gpu*/' >> .git/info/exclude
  rm -rf .gpu .gpu1 .gpu2; mkdir .gpu .gpu1
  cp -r $HERE/*.py $HERE/*.sh $HERE/stubs .gpu/
  dirty=$(git status --porcelain --untracked-files=no)
  echo "$(git rev-parse --short=12 HEAD)${dirty:++}" > .gpu/commit
  cp -r $HERE/wheels $HERE/keep1/data $HERE/keep1/weights .gpu1/
  cp -r $HERE/keep2 .gpu2
  git ls-files 'book/weights/*' 'book/*.ipynb' 'book/results/*.outcomes.safetensors' | while read -r f; do
    mkdir -p "$ASIDE/$(dirname "$f")"; mv "$f" "$ASIDE/$f"
  done
  tree=$(git ls-files -co --exclude-standard -z | xargs -0 du -cb 2> /dev/null | tail -1 | cut -f1)
  for n in .gpu1 .gpu2 ''; do
    echo "call with carry .gpu $n: $(( ($tree + $(du -cb .gpu $n | tail -1 | cut -f1)) / 1048576 )) MiB of 64"
  done
  cat .gpu/commit;;
back)
  cp -r $ASIDE/. . && rm -rf $ASIDE .gpu .gpu1 .gpu2
  git status --short | head -20;;
esac
