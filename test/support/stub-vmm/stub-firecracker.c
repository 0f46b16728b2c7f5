/*
 * A VMM without a guest: takes Firecracker's flags and answers its API at once, so that what drives it can be tested in
 * milliseconds. Each request is a line in the log. /stub.conf in the jail tells it to misbehave, a line a rule:
 *   start hang|exit            never opens its socket, or ends before it
 *   PUT /path refuse|full|garbage|hang|break|exit|chatter
 *   ctrl-alt-del ends          the key press ends it, as a guest that listens would
 *   watch chatter              says something on connections that ask nothing
 *   watch drop                 drops connections that ask nothing, and lives on
 * A snapshot's state file holds what was configured. Its memory file has the guest's size; a full one says "full" at the
 * start of its first two pages, a diff says "diff" at the start of the second and touches nothing else.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* For programs that include this one and do more with each request. */
#ifndef BEFORE_REQUEST
#define BEFORE_REQUEST(path, body)
#define AFTER_REQUEST(path, body)
#endif

enum { CONNECTIONS = 10, REQUEST = 60000 };

struct connection {
    int fd;
    int held; /* never answered again */
    int asked; /* or was told something unasked */
    size_t used;
    char data[REQUEST + 1];
};

static struct connection connections[CONNECTIONS];
static FILE *log_file;
static const char *instance_id = "anonymous-instance";
static const char *state = "Not started";
static int has_kernel, is_configured;
static int mem_size_mib;
static char disk_path[256];
static char rules[8192];

/* What the rule for `key` says, or an empty string. */
static const char *rule(const char *key)
{
    static char how[64];
    size_t length = strlen(key);
    for (char *line = rules; line != NULL && *line != '\0'; line = strchr(line, '\n'), line = line ? line + 1 : NULL)
        if (strncmp(line, key, length) == 0 && line[length] == ' ' &&
            sscanf(line + length, " %63s", how) == 1)
            return how;
    return "";
}

static void answer(struct connection *c, int status, const char *body)
{
    const char *reason = status == 200 ? "OK" : status == 400 ? "Bad Request" : "";
    if (status == 204)
        dprintf(c->fd, "HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n");
    else
        dprintf(c->fd,
                "HTTP/1.1 %d %s\r\nServer: Firecracker API\r\nConnection: keep-alive\r\n"
                "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                status, reason, strlen(body), body);
}

static void refuse(struct connection *c, const char *words)
{
    char body[512];
    snprintf(body, sizeof body, "{\"fault_message\":\"%s\"}", words);
    answer(c, 400, body);
}

static void drop(struct connection *c)
{
    close(c->fd);
    c->fd = -1;
}

/* Does as a rule says; returns 0 when there is none. */
static int misbehave(struct connection *c, const char *how)
{
    if (strcmp(how, "refuse") == 0)
        refuse(c, "The stub was told to refuse this.");
    else if (strcmp(how, "full") == 0)
        refuse(c, "Cannot write memory file: No space left on device (os error 28)");
    else if (strcmp(how, "garbage") == 0)
        answer(c, 400, "{ \"error\": \"Invalid\nbody\x1b[31m\" }");
    else if (strcmp(how, "hang") == 0)
        c->held = 1;
    else if (strcmp(how, "break") == 0)
        drop(c);
    else if (strcmp(how, "exit") == 0) {
        fprintf(log_file, "the stub was told to exit\n");
        exit(1);
    } else if (strcmp(how, "chatter") == 0)
        answer(c, 200, "this is not JSON");
    else
        return 0;
    return 1;
}

/* Copies the string `name` of a flat JSON body; returns 0 when there is none. */
static int text_of(const char *body, const char *name, char out[256])
{
    char key[64];
    snprintf(key, sizeof key, "\"%s\":\"", name);
    const char *value = strstr(body, key);
    return value != NULL && sscanf(value + strlen(key), "%255[^\"]", out) == 1;
}

static void remember(const char *path, const char *body)
{
    const char *size = strstr(body, "\"mem_size_mib\":");
    if (strcmp(path, "/boot-source") == 0)
        has_kernel = 1;
    if (size != NULL)
        mem_size_mib = atoi(size + 15);
    if (strcmp(path, "/drives/rootfs") == 0)
        text_of(body, "path_on_host", disk_path);
    if (strcmp(path, "/serial") != 0 && strcmp(path, "/mmds") != 0)
        is_configured = 1;
}

static int write_snapshot(const char *body)
{
    char state_path[256], memory_path[256];
    if (!text_of(body, "snapshot_path", state_path) || !text_of(body, "mem_file_path", memory_path))
        return EINVAL;
    FILE *file = fopen(state_path, "w");
    if (file == NULL)
        return errno;
    fprintf(file, "%d %s\n", mem_size_mib, disk_path);
    fclose(file);
    int is_full = strstr(body, "\"Diff\"") == NULL;
    int fd = open(memory_path, O_WRONLY | O_CREAT, 0600);
    if (fd < 0)
        return errno;
    int failed = ftruncate(fd, (off_t)mem_size_mib << 20) != 0 ||
                 (is_full && pwrite(fd, "full", 4, 0) != 4) ||
                 pwrite(fd, is_full ? "full" : "diff", 4, 4096) != 4;
    int why = failed ? errno : 0;
    close(fd);
    return why;
}

static int read_snapshot(const char *body)
{
    char state_path[256], memory_path[256];
    struct stat memory;
    if (!text_of(body, "snapshot_path", state_path) || !text_of(body, "backend_path", memory_path))
        return EINVAL;
    FILE *file = fopen(state_path, "r");
    if (file == NULL || stat(memory_path, &memory) != 0)
        return errno;
    int found = fscanf(file, "%d %255s", &mem_size_mib, disk_path);
    fclose(file);
    return found == 2 && memory.st_size == (off_t)mem_size_mib << 20 ? 0 : EINVAL;
}

static void serve(struct connection *c, const char *method, const char *path, const char *body)
{
    char key[300], text[512];
    fprintf(log_file, "%s %s %s\n", method, path, body);
    fflush(log_file);
    snprintf(key, sizeof key, "%s %s", method, path);
    if (misbehave(c, rule(key)))
        return;
    int started = strcmp(state, "Not started") != 0, why;
    if (strcmp(key, "GET /") == 0) {
        snprintf(text, sizeof text,
                 "{\"id\":\"%s\",\"state\":\"%s\",\"vmm_version\":\"1.17.0\",\"app_name\":\"Firecracker\"}",
                 instance_id, state);
        answer(c, 200, text);
    } else if (strcmp(key, "GET /vm/config") == 0) {
        snprintf(text, sizeof text, "{\"drives\":[{\"drive_id\":\"rootfs\",\"path_on_host\":\"%s\"}]}", disk_path);
        answer(c, 200, text);
    } else if (!started && (strcmp(method, "PATCH") == 0 || strcmp(path, "/snapshot/create") == 0 ||
                            strstr(body, "SendCtrlAltDel"))) {
        refuse(c, "The requested operation is not supported before starting the microVM.");
    } else if (strcmp(key, "PATCH /drives/rootfs") == 0) {
        answer(c, 204, "");
    } else if (strcmp(key, "PATCH /vm") == 0) {
        state = strstr(body, "Paused") ? "Paused" : "Running";
        answer(c, 204, "");
    } else if (strcmp(key, "PUT /actions") == 0 && strstr(body, "SendCtrlAltDel")) {
        answer(c, 204, "");
        if (strcmp(rule("ctrl-alt-del"), "ends") == 0)
            exit(0);
    } else if (strcmp(method, "PUT") != 0) {
        refuse(c, "Invalid request method and/or path.");
    } else if (strcmp(path, "/snapshot/create") == 0) {
        why = strcmp(state, "Paused") == 0 ? write_snapshot(body) : EBUSY;
        snprintf(text, sizeof text, "Create snapshot error: %s (os error %d)", strerror(why), why);
        if (why == 0)
            answer(c, 204, "");
        else
            refuse(c, text);
    } else if (started) {
        refuse(c, "The requested operation is not supported after starting the microVM.");
    } else if (strcmp(path, "/actions") == 0) {
        if (!has_kernel) {
            refuse(c, "Cannot start microvm without kernel configuration.");
            return;
        }
        state = "Running";
        answer(c, 204, "");
    } else if (strcmp(path, "/snapshot/load") == 0 && is_configured) {
        refuse(c, "Loading a microVM snapshot is not allowed after configuring boot-specific resources.");
    } else if (strcmp(path, "/snapshot/load") == 0) {
        why = read_snapshot(body);
        if (why != 0) {
            snprintf(text, sizeof text, "Load snapshot error: %s (os error %d)", strerror(why), why);
            refuse(c, text);
            fprintf(log_file, "the stub ends after a failed load\n");
            exit(1);
        }
        state = "Paused";
        answer(c, 204, "");
    } else {
        remember(path, body);
        answer(c, 204, "");
    }
}

/* Serves each whole request that has arrived. */
static void arrived(struct connection *c)
{
    char method[16], path[256];
    for (;;) {
        c->data[c->used] = '\0';
        char *end = strstr(c->data, "\r\n\r\n");
        if (end == NULL || c->held || c->fd < 0)
            return;
        size_t head = (size_t)(end - c->data) + 4, length = 0;
        char *header = strcasestr(c->data, "\r\ncontent-length:");
        if (header != NULL && header < end)
            length = strtoul(header + 17, NULL, 10);
        if (c->used < head + length)
            return;
        char *body = strndup(c->data + head, length);
        if (sscanf(c->data, "%15s %255s", method, path) == 2) {
            BEFORE_REQUEST(path, body);
            serve(c, method, path, body);
            AFTER_REQUEST(path, body);
        }
        free(body);
        memmove(c->data, c->data + head + length, c->used - head - length);
        c->used -= head + length;
    }
}

/* Whoever has said nothing yet is told something that it did not ask for, once. */
static void chatter(void)
{
    for (int i = 0; i < CONNECTIONS; i++) {
        if (connections[i].fd < 0 || connections[i].asked)
            continue;
        dprintf(connections[i].fd, "boo");
        connections[i].asked = 1;
    }
}

static void run(int listener)
{
    struct pollfd polled[CONNECTIONS + 1];
    for (;;) {
        polled[0] = (struct pollfd){.fd = listener, .events = POLLIN};
        for (int i = 0; i < CONNECTIONS; i++)
            polled[i + 1] = (struct pollfd){.fd = connections[i].fd, .events = POLLIN};
        int chatters = strcmp(rule("watch"), "chatter") == 0;
        int found = poll(polled, CONNECTIONS + 1, chatters ? 30 : -1);
        if (found == 0)
            chatter();
        if (found <= 0)
            continue;
        for (int i = 0; i < CONNECTIONS; i++) {
            struct connection *c = &connections[i];
            if (c->fd < 0 || polled[i + 1].revents == 0)
                continue;
            ssize_t n = read(c->fd, c->data + c->used, REQUEST - c->used);
            if (n <= 0) {
                drop(c);
                continue;
            }
            c->used += (size_t)n;
            c->asked = 1;
            arrived(c);
        }
        if (polled[0].revents & POLLIN) {
            int fd = accept(listener, NULL, NULL);
            int i = 0;
            while (i < CONNECTIONS && connections[i].fd >= 0)
                i++;
            if (fd < 0 || i == CONNECTIONS) {
                close(fd);
                continue;
            }
            if (strcmp(rule("watch"), "drop") == 0 && i == 0) {
                usleep(30000);
                close(fd);
                strcpy(strstr(rules, "watch drop"), "");
                continue;
            }
            connections[i] = (struct connection){.fd = fd};
        }
    }
}

int main(int argc, char **argv)
{
    const char *socket_path = "/run/firecracker.socket", *log_path = "/dev/null";
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--version") == 0) {
            printf("Firecracker v1.17.0\n\n");
            return 0;
        }
        if (strcmp(argv[i], "--snapshot-version") == 0) {
            printf("v11.0.0\nFirecracker exiting successfully. exit_code=0\n");
            return 0;
        }
        if (i + 1 < argc && strcmp(argv[i], "--api-sock") == 0)
            socket_path = argv[i + 1];
        if (i + 1 < argc && strcmp(argv[i], "--log-path") == 0)
            log_path = argv[i + 1];
        if (i + 1 < argc && strcmp(argv[i], "--id") == 0)
            instance_id = argv[i + 1];
    }
    signal(SIGPIPE, SIG_IGN);
    log_file = fopen(log_path, "a");
    if (log_file == NULL)
        return 1;
    FILE *conf = fopen("/stub.conf", "r");
    if (conf != NULL) {
        rules[fread(rules, 1, sizeof rules - 1, conf)] = '\0';
        fclose(conf);
    }
    if (strcmp(rule("start"), "hang") == 0)
        for (;;)
            pause();
    if (strcmp(rule("start"), "exit") == 0) {
        fprintf(log_file, "the stub was told to exit at its start\n");
        exit(1);
    }
    for (int i = 0; i < CONNECTIONS; i++)
        connections[i].fd = -1;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, socket_path, sizeof address.sun_path - 1);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0) {
        fprintf(log_file, "bind: %s\n", strerror(errno));
        exit(1);
    }
    /* Long enough for a client to see the socket's file before anybody listens. */
    if (strcmp(rule("start"), "late") == 0)
        usleep(50000);
    listen(listener, 16);
    run(listener);
}
