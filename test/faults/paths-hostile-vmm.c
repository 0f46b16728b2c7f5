/*
 * A VMM that a guest took over: the stub, which on top of that does to its own jail what its user can. The kernel's arguments
 * tell it what, a word or several in `hostile=links,save-links,…`, and in `canary=/path` a folder outside with a file
 * `secret` in it and a folder `inner`.
 *   links        each file of the jail becomes a link to the secret, the API's folder one to the canary
 *   pipes        each file of the jail becomes a pipe
 *   folders      each file of the jail becomes a folder with a link to the canary in it
 *   names        disk, console and logs get twenty more names
 *   deep         folders in folders, their path far longer than any path may be
 *   large        a file as large as the VMM may write, all of it a hole; the console as well
 *   save-links   while a snapshot is written: its files' names in the jail become links to the secret
 *   save-folders the same, folders
 *   save-aside   the same, files of the VMM's own
 *   save-names   both files get two more names
 *   save-later   the files are written to after the VMM said that they were done
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void before_request(const char *path, const char *body);
static void after_request(const char *path);
#define BEFORE_REQUEST(path, body) before_request(path, body)
#define AFTER_REQUEST(path, body) after_request(path)
#include "../support/stub-vmm/stub-firecracker.c"

static char deeds[256], canary[200];
static int kept[2] = {-1, -1};

static int told(const char *deed)
{
    char list[300], word[80];
    snprintf(list, sizeof list, ",%s,", deeds);
    snprintf(word, sizeof word, ",%s,", deed);
    return strstr(list, word) != NULL;
}

/* The word behind `name` in the kernel's arguments. */
static void word_of(const char *body, const char *name, char *out, size_t size)
{
    const char *found = strstr(body, name);
    if (found != NULL)
        snprintf(out, size, "%.*s", (int)strcspn(found + strlen(name), " \""), found + strlen(name));
}

static void put_link(const char *path, const char *inside)
{
    char target[256];
    snprintf(target, sizeof target, "%s%s", canary, inside);
    if (symlink(target, path) != 0)
        fprintf(log_file, "symlink %s: %s\n", path, strerror(errno));
}

static void put_folder(const char *path)
{
    char inner[600];
    mkdir(path, 0000);
    chmod(path, 0700);
    snprintf(inner, sizeof inner, "%s/out", path);
    put_link(inner, "");
    snprintf(inner, sizeof inner, "%s/secret", path);
    put_link(inner, "/secret");
}

/* Does with each file of the jail as it was told, the running program and the pid file among them. */
static void with_each_file(void)
{
    struct stat found;
    char path[300], other[600];
    DIR *root = opendir("/");
    for (struct dirent *entry; root != NULL && (entry = readdir(root)) != NULL;) {
        snprintf(path, sizeof path, "/%s", entry->d_name);
        if (lstat(path, &found) != 0 || !S_ISREG(found.st_mode))
            continue;
        for (int i = 0; told("names") && i < 20; i++) {
            snprintf(other, sizeof other, "/dev/%s-%d", entry->d_name, i);
            link(path, other);
        }
        if (!told("links") && !told("pipes") && !told("folders"))
            continue;
        unlink(path);
        if (told("links"))
            put_link(path, "/secret");
        else if (told("pipes"))
            mkfifo(path, 0666);
        else
            put_folder(path);
    }
    if (root != NULL)
        closedir(root);
}

static void go_deep(void)
{
    char name[201];
    memset(name, 'd', 200);
    name[200] = '\0';
    for (int i = 0; i < 60 && mkdir(name, 0700) == 0 && chdir(name) == 0; i++)
        put_link("out", "");
    if (chdir("/") != 0)
        exit(1);
}

static void grow_large(void)
{
    int fd = open("/large", O_WRONLY | O_CREAT, 0600);
    int console = open("/console.log", O_WRONLY);
    signal(SIGXFSZ, SIG_IGN);
    for (off_t size = (off_t)1 << 62; size > 1; size /= 2)
        if (ftruncate(fd, size) == 0)
            break;
    for (off_t size = (off_t)1 << 62; size > 1; size /= 2)
        if (console >= 0 && ftruncate(console, size) == 0)
            break;
    close(fd);
    close(console);
}

/* The jail has a secret of its own where the canary's is outside, so that writing to a link is as good as done. */
static void make_own_secret(void)
{
    char path[256];
    snprintf(path, sizeof path, "%s", canary);
    for (char *slash = path + 1; (slash = strchr(slash, '/')) != NULL; *slash++ = '/') {
        *slash = '\0';
        mkdir(path, 0700);
    }
    mkdir(canary, 0700);
    snprintf(path, sizeof path, "%s/secret", canary);
    close(open(path, O_WRONLY | O_CREAT, 0600));
}

static void replace(const char *path, int by_folder)
{
    unlink(path);
    if (by_folder)
        put_folder(path);
    else
        put_link(path, "/secret");
}

static void before_request(const char *path, const char *body)
{
    char state_path[256], memory_path[256];
    if (strcmp(path, "/boot-source") == 0) {
        word_of(body, "hostile=", deeds, sizeof deeds);
        word_of(body, "canary=", canary, sizeof canary);
    }
    if (kept[0] >= 0)
        for (int i = 0; i < 2; i++)
            if (pwrite(kept[i], "later", 5, 0) != 5)
                fprintf(log_file, "too late to write: %s\n", strerror(errno));
    if (strcmp(path, "/snapshot/create") != 0 || !text_of(body, "snapshot_path", state_path) ||
        !text_of(body, "mem_file_path", memory_path))
        return;
    if (told("save-links") || told("save-folders")) {
        make_own_secret();
        replace(state_path, told("save-folders"));
        replace(memory_path, told("save-folders"));
    }
    if (told("save-aside")) {
        unlink(state_path);
        unlink(memory_path);
    }
    for (int i = 0; told("save-names") && i < 2; i++) {
        link(state_path, i == 0 ? "/state-a" : "/state-b");
        link(memory_path, i == 0 ? "/memory-a" : "/memory-b");
    }
    if (told("save-later")) {
        kept[0] = open(state_path, O_WRONLY);
        kept[1] = open(memory_path, O_WRONLY);
    }
}

static void after_request(const char *path)
{
    /* The guest runs from here on, and the jailer has done its part. */
    if (strcmp(path, "/actions") == 0 && strcmp(state, "Running") == 0 && deeds[0] != '\0') {
        with_each_file();
        if (told("links")) {
            rename("/run", "/run-before");
            put_link("/run", "/inner");
        }
        if (told("deep"))
            go_deep();
        if (told("large"))
            grow_large();
        fprintf(log_file, "deeds done: %s\n", deeds);
        fflush(log_file);
    }
}
