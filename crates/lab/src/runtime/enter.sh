# Becomes the machine of a lab node, then runs the command given.
#
# Arguments: a directory for what the machine would keep (with the list `cgroups`: name, type, options and group of each
# hierarchy), the node's CNI configuration, its CNI plugins, the command. Runs in the node's network namespace and in a
# mount namespace of its own, so every mount here ends with it.
set -eu
dir=$1 net_d=$2 plugins=$3

# Join our group in each hierarchy, then start again with it as the root.
if [ "$4" != --joined ]; then
    shift 3
    while read -r _ _ _ group; do
        echo $$ > "$group/cgroup.procs"
    done < "$dir/cgroups"
    exec unshare --cgroup --mount --uts --propagation private \
        sh "$0" "$dir" "$net_d" "$plugins" --joined "$@"
fi
shift 4

mount -t tmpfs tmpfs /sys
mount -t sysfs sysfs /sys
[ "$(wc -l < "$dir/cgroups")" -eq 1 ] || mount -t tmpfs tmpfs /sys/fs/cgroup
while read -r name type options _; do
    mkdir -p "/sys/fs/cgroup/$name"
    mount -t "$type" -o "$options" "$type" "/sys/fs/cgroup/$name"
done < "$dir/cgroups"
if [ -e /sys/fs/cgroup/cgroup.subtree_control ]; then
    # Version 2 alone: where controllers are handed on, processes may be only in the leaves.
    mkdir /sys/fs/cgroup/init
    echo $$ > /sys/fs/cgroup/init/cgroup.procs
fi

# Nothing that containerd or a plugin writes reaches the machine's own directories.
for path in etc opt; do
    mkdir -p "$dir/overlay/$path/upper" "$dir/overlay/$path/work"
    mount -t overlay overlay \
        -o "lowerdir=/$path,upperdir=$dir/overlay/$path/upper,workdir=$dir/overlay/$path/work" "/$path"
done
mount -t tmpfs tmpfs /run
mkdir -p /etc/cni/net.d /opt/cni/bin
mount --bind "$net_d" /etc/cni/net.d
mount --bind "$plugins" /opt/cni/bin
hostname "$(basename "$dir")"
exec "$@"
