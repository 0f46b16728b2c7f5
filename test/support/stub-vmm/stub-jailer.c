/*
 * A jailer that does what matters to the one who calls it: layout, cgroups, network namespace, chroot, pid file, user,
 * daemon. `stub-jailer.conf` beside it tells it to misbehave, one word:
 *   fail            says so and exits 1
 *   hang            never ends
 *   wrong-gid       runs the VMM in another group
 *   other-pid       names process 1 in the pid file
 *   linked-pid      makes the pid file a link
 *   no-netns        stays in the caller's network namespace
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libgen.h>
#include <limits.h>
#include <mntent.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static char mode[64];

static int told(const char *what)
{
    return strcmp(mode, what) == 0;
}

static void die(const char *what)
{
    fprintf(stderr, "stub-jailer: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        die(path);
    close(fd);
}

static void make_parents(char *path)
{
    for (char *slash = path + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    mkdir(path, 0700);
}

/* Where `controller` is mounted. */
static void mount_point(int version, const char *controller, char *out)
{
    FILE *mounts = setmntent("/proc/mounts", "r");
    for (struct mntent *m; (m = getmntent(mounts)) != NULL;)
        if ((version == 2 && strcmp(m->mnt_type, "cgroup2") == 0) ||
            (version == 1 && strcmp(m->mnt_type, "cgroup") == 0 && hasmntopt(m, controller))) {
            strcpy(out, m->mnt_dir);
            endmntent(mounts);
            return;
        }
    errno = ENOENT;
    die(controller);
}

static void join_cgroup(int version, const char *parent, const char *id, char *setting)
{
    char base[PATH_MAX], leaf[PATH_MAX * 2], file[PATH_MAX * 3], pid[32], controller[64];
    char *value = strchr(setting, '=');
    *value++ = '\0';
    snprintf(controller, sizeof controller, "%.*s", (int)strcspn(setting, "."), setting);
    mount_point(version, controller, base);
    snprintf(leaf, sizeof leaf, "%s/%s/%s", base, parent, id);
    make_parents(leaf);
    snprintf(file, sizeof file, "%s/%s", leaf, setting);
    write_text(file, value);
    snprintf(file, sizeof file, "%s/cgroup.procs", leaf);
    snprintf(pid, sizeof pid, "%d", getpid());
    write_text(file, pid);
}

static void copy_file(const char *from, const char *to)
{
    char buffer[65536];
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_NOFOLLOW, 0755);
    if (in < 0 || out < 0)
        die(to);
    for (ssize_t n; (n = read(in, buffer, sizeof buffer)) > 0;)
        if (write(out, buffer, (size_t)n) != n)
            die(to);
    close(in);
    close(out);
}

int main(int argc, char **argv)
{
    const char *id = "", *exec_file = "", *base = "/srv/jailer", *netns = NULL, *parent = "stub";
    char *settings[16];
    int setting_count = 0, version = 1;
    uid_t uid = 0;
    gid_t gid = 0;
    char **rest = argv + argc;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--version") == 0) {
            printf("Jailer v1.17.0\n\n");
            return 0;
        }
        if (strcmp(argv[i], "--") == 0) {
            rest = argv + i + 1;
            break;
        }
        if (strcmp(argv[i], "--daemonize") == 0 || strcmp(argv[i], "--new-pid-ns") == 0)
            continue;
        const char *name = argv[i];
        char *value = argv[++i];
        if (strcmp(name, "--id") == 0) id = value;
        else if (strcmp(name, "--exec-file") == 0) exec_file = value;
        else if (strcmp(name, "--uid") == 0) uid = (uid_t)atoi(value);
        else if (strcmp(name, "--gid") == 0) gid = (gid_t)atoi(value);
        else if (strcmp(name, "--chroot-base-dir") == 0) base = value;
        else if (strcmp(name, "--netns") == 0) netns = value;
        else if (strcmp(name, "--parent-cgroup") == 0) parent = value;
        else if (strcmp(name, "--cgroup-version") == 0) version = atoi(value);
        else if (strcmp(name, "--cgroup") == 0 && setting_count < 16) settings[setting_count++] = value;
        else if (strcmp(name, "--resource-limit") != 0) {
            fprintf(stderr, "Found argument '%s' which wasn't expected\n", name);
            return 1;
        }
    }
    char here[PATH_MAX], conf_path[PATH_MAX * 2];
    here[readlink("/proc/self/exe", here, sizeof here - 1)] = '\0';
    snprintf(conf_path, sizeof conf_path, "%s/stub-jailer.conf", dirname(here));
    FILE *conf = fopen(conf_path, "r");
    if (conf != NULL && fscanf(conf, "%63s", mode) != 1)
        mode[0] = '\0';
    if (told("fail")) {
        fprintf(stderr, "the stub was told to fail\n");
        return 1;
    }
    if (told("hang"))
        for (;;)
            pause();

    char name[PATH_MAX], root[PATH_MAX * 2], exec_in_jail[PATH_MAX + 1], file[PATH_MAX * 3];
    strcpy(name, exec_file);
    strcpy(name, basename(name));
    snprintf(root, sizeof root, "%s/%s/%s/root", base, name, id);
    make_parents(root);
    snprintf(file, sizeof file, "%s/%s", root, name);
    copy_file(exec_file, file);
    if (netns != NULL && !told("no-netns")) {
        int fd = open(netns, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || setns(fd, CLONE_NEWNET) != 0)
            die(netns);
    }
    for (int i = 0; i < setting_count; i++)
        join_cgroup(version, parent, id, settings[i]);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (unshare(CLONE_NEWNS) != 0 || chroot(root) != 0 || chdir("/") != 0)
        die("chroot");
    mkdir("/run", 0700);
    mkdir("/dev", 0700);
    if (told("wrong-gid"))
        gid += 1;
    if (chown("/", uid, gid) != 0 || chown("/run", uid, gid) != 0 || chown("/dev", uid, gid) != 0)
        die("chown");

    if (fork() != 0)
        _exit(0);
    setsid();
    if (fork() != 0)
        _exit(0);
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd);
    pid_t child = (pid_t)syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, NULL, NULL, NULL, NULL);
    if (child == 0) {
        char *args[64] = {exec_in_jail, "--id", (char *)id};
        int count = 3;
        while (*rest != NULL && count < 63)
            args[count++] = *rest++;
        args[count] = NULL;
        snprintf(exec_in_jail, sizeof exec_in_jail, "/%s", name);
        if (setgroups(0, NULL) != 0 || setgid(gid) != 0 || setuid(uid) != 0)
            _exit(1);
        execv(exec_in_jail, args);
        _exit(1);
    }
    char pid_path[PATH_MAX + 8], pid[32];
    snprintf(pid_path, sizeof pid_path, "/%s.pid", name);
    snprintf(pid, sizeof pid, "%d", told("other-pid") ? 1 : child);
    if (told("linked-pid")) {
        write_text("/elsewhere", pid);
        if (symlink("/elsewhere", pid_path) != 0)
            _exit(1);
    } else
        write_text(pid_path, pid);
    _exit(0);
}
