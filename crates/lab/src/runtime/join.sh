# Runs a command in the control groups that a list names: name, type, options and group of each hierarchy.
set -eu
list=$1
shift
while read -r _ _ _ group; do
    # Version 2 alone: where controllers are handed on, processes may be only in the leaves.
    [ ! -d "$group/init" ] || group=$group/init
    echo $$ > "$group/cgroup.procs"
done < "$list"
exec "$@"
