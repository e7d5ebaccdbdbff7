// An agency's server in C++: agency CONFIG-FILE PORT.
//
// Receives webhooks on 127.0.0.1:PORT. Each line of stdin is the redirect URL of a consent. At the
// end of stdin the program makes a last call for every location and exits.
#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <thread>

#include "ghl_oauth.hpp"

namespace {

// Reads one request: its headers and body.
bool read_request(int connection, ghl::headers &headers, std::string &body) {
    std::string text;
    std::size_t end = std::string::npos, length = 0;
    char piece[4096];
    while (end == std::string::npos || text.size() < end + 4 + length) {
        const ssize_t count = recv(connection, piece, sizeof piece, 0);
        if (count <= 0) {
            return false;
        }
        text.append(piece, static_cast<std::size_t>(count));
        if (end == std::string::npos && (end = text.find("\r\n\r\n")) != std::string::npos) {
            std::istringstream lines(text.substr(0, end));
            std::string line;
            std::getline(lines, line); // the request line
            while (std::getline(lines, line)) {
                line.erase(line.find_last_not_of("\r") + 1);
                const std::size_t colon = line.find(':');
                const std::size_t value = line.find_first_not_of(' ', colon + 1);
                std::string name = line.substr(0, colon);
                for (char &letter : name) {
                    letter = static_cast<char>(letter >= 'A' && letter <= 'Z' ? letter - 'A' + 'a'
                                                                              : letter);
                }
                const std::string content = value == std::string::npos ? "" : line.substr(value);
                if (name == "content-length") {
                    length = std::stoul(content);
                }
                headers.add(name, content);
            }
        }
    }
    body = text.substr(end + 4);
    return true;
}

int answer(const ghl::client &client, const std::string &body, const ghl::headers &headers) {
    try {
        client.webhook_apply(body, headers);
        return 200;
    } catch (const ghl::signature_invalid &) {
        return 401;
    } catch (const ghl::error &error) {
        return error.retryable() ? 429 : 400;
    }
}

void receive(const ghl::client &client, int listener) {
    for (;;) {
        const int connection = accept(listener, nullptr, nullptr);
        if (connection < 0) {
            return;
        }
        ghl::headers headers;
        std::string body;
        if (read_request(connection, headers, body)) {
            const std::string reply = "HTTP/1.1 " + std::to_string(answer(client, body, headers)) +
                                      " -\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            if (send(connection, reply.data(), reply.size(), 0) < 0) {
                std::cerr << "an answer was not sent\n";
            }
        }
        close(connection);
    }
}

// Makes a call for each location. Returns whether to retry.
bool visit_all(const ghl::client &client, std::map<std::string, int> &visited) {
    bool again = false;
    visited.clear();
    ghl::token_filter locations;
    locations.user_type = "Location";
    for (const ghl::token_info &held : client.tokens_list(locations).to_vector()) {
        try {
            const ghl::api_response answer = client.request(
                ghl::api_request("GET", "/locations/" + held.resource_id, held.resource_id));
            visited[held.resource_id] = static_cast<int>(answer.status);
            again = again || answer.status == 401 || answer.status == 429 || answer.status >= 500;
        } catch (const ghl::location_inactive &) {
            continue; // paused by its agency; its token is kept
        } catch (const ghl::error &error) {
            std::cerr << held.resource_id << ": " << error.what() << '\n';
            again = again || error.retryable();
        }
    }
    return again;
}

void show_link(const ghl::client &client) {
    std::cout << "link " << client.authorization_url().url << std::endl;
}

int serve(const ghl::client &client) {
    std::map<std::string, int> visited;
    show_link(client);
    for (;;) {
        pollfd input = {0, POLLIN, 0};
        if (poll(&input, 1, 500) == 0) {
            client.tokens_maintain();
            visit_all(client, visited);
            continue;
        }
        std::string line;
        if (!std::getline(std::cin, line)) {
            break;
        }
        const ghl::token_info company = client.authorization_complete(line);
        client.tokens_mint(company.resource_id);
        std::cout << "connected " << company.resource_id << std::endl;
        show_link(client);
    }
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(90);
    for (;;) {
        client.tokens_maintain();
        if (!visit_all(client, visited) || std::chrono::steady_clock::now() > end) {
            break;
        }
        std::this_thread::sleep_for(std::chrono::seconds(1));
    }
    for (const auto &[resource_id, status] : visited) {
        std::cout << "visited " << resource_id << ' ' << status << '\n';
    }
    return 0;
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 3) {
        std::cerr << "usage: " << argv[0] << " CONFIG-FILE PORT\n";
        return 2;
    }
    std::ifstream file(argv[1]);
    std::stringstream config;
    config << file.rdbuf();
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    const int reuse = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof reuse);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(argv[2])));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, reinterpret_cast<sockaddr *>(&address), sizeof address) != 0 ||
        listen(listener, 64) != 0) {
        std::cerr << "the port cannot be listened on\n";
        return 1;
    }
    try {
        const ghl::client client(config.str());
        std::thread receiver(receive, std::cref(client), listener);
        int code = 1;
        try {
            code = serve(client);
        } catch (const ghl::error &error) {
            std::cerr << error.what() << '\n';
        }
        shutdown(listener, SHUT_RDWR);
        receiver.join();
        return code;
    } catch (const ghl::error &error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
}
