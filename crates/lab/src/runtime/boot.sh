# Becomes the machine of a lab node, and waits for ever: programs come into its namespaces later.
#
# Arguments: a directory for what the machine would keep, with the lists `cgroups` (name, type, options and group of each
# hierarchy) and `binds` (what is to be seen, and where). Runs in the node's network namespace and control groups, and in a
# mount namespace of its own, so every mount here ends with it.
set -eu
dir=$1

# With our groups as the roots.
if [ "${2:-}" != --joined ]; then
    exec unshare --cgroup --mount --uts --propagation private sh "$0" "$dir" --joined
fi

mount -t tmpfs tmpfs /sys
mount -t sysfs sysfs /sys
[ "$(wc -l < "$dir/cgroups")" -eq 1 ] || mount -t tmpfs tmpfs /sys/fs/cgroup
while read -r name type options _; do
    mkdir -p "/sys/fs/cgroup/$name"
    mount -t "$type" -o "$options" "$type" "/sys/fs/cgroup/$name"
done < "$dir/cgroups"

# Nothing that anything here writes reaches the machine's own directories.
for path in etc opt var/lib var/log; do
    mkdir -p "$dir/overlay/$path/upper" "$dir/overlay/$path/work"
    mount -t overlay overlay \
        -o "lowerdir=/$path,upperdir=$dir/overlay/$path/upper,workdir=$dir/overlay/$path/work" "/$path"
done
mount -t tmpfs tmpfs /run
while read -r source target; do
    [ ! -d "$source" ] || mkdir -p "$target"
    mount --bind "$source" "$target"
done < "$dir/binds"
# As systemd leaves it on a real machine: containers may see what is mounted later.
mount --make-rshared /
hostname "$(cat "$dir/hostname")"
exec sleep infinity
