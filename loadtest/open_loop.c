/* Clients that come at a given rate, whatever becomes of those before them, and what they need.
 *
 *   open_loop clients PORT RATE SECONDS THREAD [FILE]
 *                                         opens RATE connections a second; each sends a message,
 *                                         that of FILE, and waits for its echo. RATE 0: 64 at a time, one after the
 *                                         other: the most that are served. Prints
 *                                         SERVED_PER_SECOND OPENED_PER_SECOND REFUSED_PER_SECOND
 *                                         GIVEN_UP_PER_SECOND P50_MS P99_MS (of those served) CPU,
 *                                         the part of a CPU that THREAD (/proc/PID/task/TID) used
 *   open_loop pings PORT COUNT SECONDS    COUNT connections that stay open and echo a message each
 *                                         20 ms. Prints P50_MS P99_MS MAX_MS LOST
 *   open_loop echo PORT                   the backend
 *   open_loop flood PORT                  a backend that sends for ever
 *   open_loop steal PERCENT               takes so much of its CPU from other programs, in steps of
 *                                         1 ms (needs CAP_SYS_NICE)
 *
 * All on 127.0.0.1. Clients have addresses from 127.16.0.1 on, so that local ports suffice. The
 * first second of the clients is not counted.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    SOCKETS = 16000, /* of a process */
    PROCESSES = 8,
    MESSAGE = 64,
    MESSAGE_MAX = 4096,
    AT_A_TIME = 64,
    EVENTS = 512,
    TIMES = 1000000, /* of a process */
};
/* Seconds that a client waits for its echo; a kernel sends a dropped SYN again after one. */
static const double PATIENCE = 2.0;
static const double WARM_UP = 1.0;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec * 1e-9;
}

static struct sockaddr_in address(unsigned host, int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    at.sin_addr.s_addr = htonl(host);
    return at;
}

static void set(int fd, int level, int option) {
    int on = 1;
    setsockopt(fd, level, option, &on, sizeof on);
}

static void watch(int epoll, int how, int fd, unsigned events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll, how, fd, &event)) die("epoll_ctl");
}

static int ascending(const void *one, const void *other) {
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

static double percentile(double *times, long count, int percent) {
    return count ? times[(count - 1) * percent / 100] * 1e3 : 0;
}

/* ---- Clients ---------------------------------------------------------------------------------- */

static struct {
    double began;
    unsigned use; /* counts what the descriptor was used for */
    int sent;
} client[SOCKETS];

/* Clients by the time at which they began. */
static struct {
    int fd;
    unsigned use;
} queue[SOCKETS];
static long first, last;
static int waiting, epoll;

/* What a process has counted. */
static struct counts {
    long opened, served, refused, given_up;
    double times[TIMES];
} *counts;

static void leave(int fd) {
    client[fd].use++;
    close(fd);
    waiting--;
}

static void come(int port, unsigned process) {
    static unsigned number;
    struct sockaddr_in from = address(0x7f100001 + (process << 16) + number++ % 60000, 0);
    struct sockaddr_in to = address(INADDR_LOOPBACK, port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0 || fd >= SOCKETS) die("socket");
    set(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT);
    /* A close leaves no port in TIME_WAIT. */
    struct linger reset = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (bind(fd, (void *)&from, sizeof from)) die("bind");
    client[fd].began = now();
    client[fd].sent = 0;
    client[fd].use++;
    if (connect(fd, (void *)&to, sizeof to) && errno != EINPROGRESS) die("connect");
    watch(epoll, EPOLL_CTL_ADD, fd, EPOLLOUT);
    queue[last % SOCKETS].fd = fd;
    queue[last++ % SOCKETS].use = client[fd].use;
    waiting++;
}

/* What a client sends. */
static char message[MESSAGE_MAX];
static long length = MESSAGE;

static void read_message(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file || (length = (long)fread(message, 1, MESSAGE_MAX, file)) == 0) die(path);
    fclose(file);
}

/* Takes the client a step further; returns whether it got its echo. */
static int step(int fd, int is_counted) {
    char echo[MESSAGE_MAX];
    if (!client[fd].sent) {
        client[fd].sent = write(fd, message, (size_t)length) == length;
        if (client[fd].sent) {
            watch(epoll, EPOLL_CTL_MOD, fd, EPOLLIN);
            return 0;
        }
    } else {
        long bytes = read(fd, echo, MESSAGE_MAX);
        if (bytes < 0 && errno == EAGAIN) return 0;
        if (bytes > 0) return 1;
    }
    counts->refused += is_counted;
    leave(fd);
    return 0;
}

static void clients(int port, unsigned process, double rate, double seconds) {
    struct epoll_event events[EVENTS];
    double began = now(), warm = began + WARM_UP, end = warm + seconds, at;
    long begun = 0;
    epoll = epoll_create1(0);
    while ((at = now()) < end) {
        int is_counted = at > warm;
        long due = rate > 0 ? (long)((at - began) * rate) - begun : AT_A_TIME - waiting;
        long more = due < EVENTS ? due : EVENTS;
        for (long i = 0; i < more && waiting < SOCKETS - 100; i++) {
            come(port, process);
            begun++;
            counts->opened += is_counted;
        }
        int ready = epoll_wait(epoll, events, EVENTS, due > more ? 0 : 1);
        at = now();
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (!step(fd, is_counted)) continue;
            if (is_counted && counts->served < TIMES)
                counts->times[counts->served++] = at - client[fd].began;
            leave(fd);
        }
        for (; first < last; first++) {
            int fd = queue[first % SOCKETS].fd;
            if (queue[first % SOCKETS].use != client[fd].use) continue;
            if (at - client[fd].began < PATIENCE) break;
            counts->given_up += is_counted;
            leave(fd);
        }
    }
}

/* CPU time in seconds that a thread has used, of /proc/PID/task/TID. */
static double cpu_time(const char *thread) {
    char path[128];
    double ns = 0;
    snprintf(path, sizeof path, "%s/schedstat", thread);
    FILE *file = fopen(path, "r");
    if (!file || fscanf(file, "%lf", &ns) != 1) die(path);
    fclose(file);
    return ns * 1e-9;
}

static void rest(double until) {
    double left = until - now();
    if (left <= 0) return;
    struct timespec time = {.tv_sec = (time_t)left};
    time.tv_nsec = (long)((left - (double)time.tv_sec) * 1e9);
    nanosleep(&time, NULL);
}

/* As many processes as have descriptors for all that wait for as long as they may. */
static void share(int port, double rate, double seconds, const char *thread) {
    double began = now(), cpu;
    unsigned most = (unsigned)(rate * PATIENCE / (SOCKETS - 2000)) + 1;
    unsigned processes = most < PROCESSES ? most : PROCESSES;
    struct counts *all = mmap(NULL, PROCESSES * sizeof *all, PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    double *times = malloc(PROCESSES * sizeof all->times);
    static struct counts sum;
    if (all == MAP_FAILED) die("mmap");
    for (unsigned i = 0; i < processes; i++) {
        counts = &all[i];
        if (fork()) continue;
        clients(port, i, rate / processes, seconds);
        exit(0);
    }
    rest(began + WARM_UP);
    cpu = cpu_time(thread);
    rest(began + WARM_UP + seconds);
    cpu = (cpu_time(thread) - cpu) / seconds;
    while (wait(NULL) > 0) {
    }
    for (unsigned i = 0; i < processes; i++) {
        memcpy(times + sum.served, all[i].times, (size_t)all[i].served * sizeof *times);
        sum.served += all[i].served;
        sum.opened += all[i].opened;
        sum.refused += all[i].refused;
        sum.given_up += all[i].given_up;
    }
    qsort(times, (size_t)sum.served, sizeof *times, ascending);
    printf("%.0f %.0f %.0f %.0f %.2f %.2f %.4f\n", (double)sum.served / seconds,
           (double)sum.opened / seconds, (double)sum.refused / seconds,
           (double)sum.given_up / seconds, percentile(times, sum.served, 50),
           percentile(times, sum.served, 99), cpu);
}

/* ---- Pings ------------------------------------------------------------------------------------ */

static void pings(int port, int count, double seconds) {
    struct sockaddr_in to = address(INADDR_LOOPBACK, port);
    struct epoll_event events[EVENTS];
    double *times = malloc(TIMES * sizeof(double)), *next = calloc((size_t)count, sizeof *next);
    double *sent = calloc(SOCKETS, sizeof *sent), began = now(), at;
    int *fds = calloc((size_t)count, sizeof *fds), lost = 0;
    long echoed = 0;
    epoll = epoll_create1(0);
    for (int i = 0; i < count; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fds[i], (void *)&to, sizeof to)) die("connect");
        set(fds[i], IPPROTO_TCP, TCP_NODELAY);
        fcntl(fds[i], F_SETFL, O_NONBLOCK);
        watch(epoll, EPOLL_CTL_ADD, fds[i], EPOLLIN);
        next[i] = now() + i * 0.02 / count;
    }
    while ((at = now()) < began + seconds) {
        for (int i = 0; i < count; i++) {
            if (fds[i] < 0 || sent[fds[i]] > 0 || next[i] > at) continue;
            sent[fds[i]] = now();
            next[i] += 0.02;
            if (next[i] < at) next[i] = at;
            if (write(fds[i], message, MESSAGE) != MESSAGE) lost++;
        }
        int ready = epoll_wait(epoll, events, EVENTS, 1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (read(fd, message, MESSAGE) == MESSAGE) {
                if (echoed < TIMES) times[echoed++] = now() - sent[fd];
                sent[fd] = 0;
                continue;
            }
            lost++;
            for (int k = 0; k < count; k++)
                if (fds[k] == fd) fds[k] = -1;
            close(fd);
        }
    }
    qsort(times, (size_t)echoed, sizeof *times, ascending);
    printf("%.2f %.2f %.2f %d\n", percentile(times, echoed, 50), percentile(times, echoed, 99),
           percentile(times, echoed, 100), lost);
}

/* ---- What they need --------------------------------------------------------------------------- */

static void serve(int port, int floods) {
    struct sockaddr_in at = address(INADDR_LOOPBACK, port);
    struct epoll_event events[EVENTS];
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    static char bytes[65536];
    set(listener, SOL_SOCKET, SO_REUSEADDR);
    if (bind(listener, (void *)&at, sizeof at) || listen(listener, 4096)) die("bind");
    epoll = epoll_create1(0);
    watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                for (int k = 0; k < 64; k++) {
                    int one = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                    if (one < 0) break;
                    set(one, IPPROTO_TCP, TCP_NODELAY);
                    watch(epoll, EPOLL_CTL_ADD, one, floods ? EPOLLOUT : EPOLLIN);
                }
                continue;
            }
            if (floods) {
                if (write(fd, bytes, sizeof bytes) < 0 && errno != EAGAIN) close(fd);
                continue;
            }
            long count = read(fd, bytes, sizeof bytes);
            if (count <= 0 || write(fd, bytes, (size_t)count) != count) close(fd);
        }
    }
}

static void steal(double percent) {
    struct sched_param priority = {.sched_priority = 50};
    if (sched_setscheduler(0, SCHED_FIFO, &priority)) die("sched_setscheduler");
    for (double begins = now();; begins += 1e-3) {
        while (now() < begins + percent * 1e-5) {
        }
        struct timespec rest = {.tv_nsec = (long)((begins + 1e-3 - now()) * 1e9)};
        if (rest.tv_nsec > 0) nanosleep(&rest, NULL);
    }
}

int main(int count, char **arguments) {
    struct rlimit files = {SOCKETS, SOCKETS};
    const char *what = count > 1 ? arguments[1] : "";
    double of[4] = {0};
    for (int i = 2; i < count && i < 5; i++) of[i - 2] = atof(arguments[i]);
    if (setrlimit(RLIMIT_NOFILE, &files)) die("setrlimit: may not have 16,000 descriptors");
    if (!strcmp(what, "clients") && count == 7) read_message(arguments[6]);
    if (!strcmp(what, "clients") && (count == 6 || count == 7))
        share((int)of[0], of[1], of[2], arguments[5]);
    else if (!strcmp(what, "pings") && count == 5)
        pings((int)of[0], (int)of[1], of[2]);
    else if (!strcmp(what, "echo") && count == 3)
        serve((int)of[0], 0);
    else if (!strcmp(what, "flood") && count == 3)
        serve((int)of[0], 1);
    else if (!strcmp(what, "steal") && count == 3)
        steal(of[0]);
    else
        return fprintf(stderr, "what it takes stands at the top of open_loop.c\n"), 2;
    return 0;
}
