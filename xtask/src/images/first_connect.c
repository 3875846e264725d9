/* first-connect ADDRESS PORT: connects at once, asks for /, prints the answer. 0 when there was one. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int count, char **words) {
	struct sockaddr_in to = {.sin_family = AF_INET};
	if (count != 3 || inet_pton(AF_INET, words[1], &to.sin_addr) != 1) return 2;
	to.sin_port = htons((unsigned short)atoi(words[2]));
	int socket_ = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(socket_, (struct sockaddr *)&to, sizeof to) != 0) { perror("connect"); return 1; }
	const char ask[] = "GET / HTTP/1.1\r\nHost: first-connect\r\nConnection: close\r\n\r\n";
	if (write(socket_, ask, sizeof ask - 1) != (ssize_t)sizeof ask - 1) { perror("write"); return 1; }
	char answer[4096];
	ssize_t got, all = 0;
	while ((got = read(socket_, answer, sizeof answer)) > 0) {
		all += got;
		if (write(1, answer, (size_t)got) != got) return 1;
	}
	if (got < 0) perror("read");
	return got == 0 && all > 0 ? 0 : 1;
}
