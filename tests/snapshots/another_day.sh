ls -la /srv /etc/hostname /dev/null
ls -l --full-time /srv
ls -l --time-style=long-iso /srv
ls -lis /srv
find /srv -ls
tar -c -f - -C / srv 2>/dev/null | tar -t -v -f -
stat /srv/new
systemctl --no-pager -n0 status systemd-logind dbus
systemctl --no-pager status looks.timer
systemctl show -p ActiveEnterTimestamp -p ActiveEnterTimestampMonotonic -p MainPID -p MemoryCurrent -p InvocationID dbus
systemctl --no-pager list-timers looks.timer
systemctl list-units --failed
systemd-analyze
ps -ef | head -3
ps aux | head -2
ps -C systemd-logind
uptime
uptime -p
w | head -2
who -b
df
df -hT
df -i
free
free -h
journalctl --no-pager -o short -n 1 -u dbus
journalctl --no-pager -o short-precise -n 1 -u dbus
journalctl --no-pager -o short-monotonic -n 1 -u dbus
ip address
ss -tlnp
mount -t ext4,autofs,devtmpfs | sort
lsblk -f
dmesg | grep -o -m 1 '.*Linux version'
hostnamectl | head -5
timedatectl | head -3
cat /proc/loadavg
date
date -R
date -I
date -u +%FT%TZ
date +%s.%N
date '+%a %d %b %Y %T %p %Z'
dpkg -l bash | head -5
dd if=/dev/zero of=/dev/null count=1
bash -c 'time true'
curl -o /dev/null file:///etc/hostname
