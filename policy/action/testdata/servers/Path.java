// Answers with the path that it sees, decoded: java Path.java PORT
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;

class Path {
    public static void main(String[] args) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])), 0);
        server.createContext("/", exchange -> {
            byte[] path = exchange.getRequestURI().normalize().getPath().getBytes(StandardCharsets.UTF_8);
            exchange.sendResponseHeaders(200, path.length == 0 ? -1 : path.length);
            exchange.getResponseBody().write(path);
            exchange.close();
        });
        server.start();
    }
}
