/* The floor: a bare epoll loop that answers fixed bytes without looking at what was asked.
 * One read is one request, one write is one response. No server that parses can be faster.
 *
 *     epoll PORT BODY_BYTES       (0: the body of the hello application)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READY_AT_ONCE = 256, READ_AT_ONCE = 16 << 10, LONGEST_HEAD = 256 };

static char *response;
static size_t response_size;

static void check(int result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(1);
    }
}

/* The fields that the servers send too, so that as many bytes go out. */
static void prepare_response(size_t body_size)
{
    const char *hello = "Hello, World!\n";
    size_t size = body_size ? body_size : strlen(hello);
    response = malloc(LONGEST_HEAD + size);
    if (!response)
        exit(1);
    int head = snprintf(response, LONGEST_HEAD,
                        "HTTP/1.1 200 OK\r\nServer: floor\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
                        "Content-Type: text/plain\r\nContent-Length: %zu\r\n\r\n", size);
    for (size_t i = 0; i < size; i++)
        response[head + i] = body_size ? (char)(32 + i % 95) : hello[i];
    response_size = head + size;
}

static int listen_on(int port)
{
    int yes = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    check(listener, "socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    check(bind(listener, (struct sockaddr *)&address, sizeof address), "bind");
    check(listen(listener, 2048), "listen");
    return listener;
}

static void watch(int poll, int descriptor)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = descriptor};
    check(epoll_ctl(poll, EPOLL_CTL_ADD, descriptor, &event), "epoll_ctl");
}

static void serve(int poll, int listener)
{
    static char request[READ_AT_ONCE];
    struct epoll_event ready[READY_AT_ONCE];
    for (;;) {
        int count = epoll_wait(poll, ready, READY_AT_ONCE, -1);
        for (int i = 0; i < count; i++) {
            int descriptor = ready[i].data.fd, yes = 1;
            if (descriptor == listener) {
                int accepted = accept(listener, NULL, NULL);
                setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
                watch(poll, accepted);
            } else if (read(descriptor, request, sizeof request) <= 0
                       || write(descriptor, response, response_size) < 0) {
                close(descriptor);
            }
        }
    }
}

int main(int count, char **words)
{
    if (count != 3) {
        fprintf(stderr, "usage: epoll PORT BODY_BYTES\n");
        return 2;
    }
    prepare_response(strtoul(words[2], NULL, 10));
    int listener = listen_on(atoi(words[1])), poll = epoll_create1(0);
    check(poll, "epoll_create1");
    watch(poll, listener);
    serve(poll, listener);
}
