// Posts and reads with the client that openapi-generator makes for Java; prints what it saw as JSON.

import java.util.ArrayList;
import java.util.List;
import java.util.stream.Collectors;
import org.openapitools.client.ApiClient;
import org.openapitools.client.ApiException;
import org.openapitools.client.api.IngestApi;
import org.openapitools.client.api.QueryApi;
import org.openapitools.client.model.*;

public class Check {
  static final String CONVERSATION = "team/7?x=ü";
  static final String MESSAGE = "p/1";

  public static void main(String[] arguments) throws Exception {
    ApiClient client = new ApiClient();
    client.setBasePath(System.getenv("RECEIPTS_URL"));
    String token = System.getenv("RECEIPTS_TOKEN");
    if (token != null) {
      client.setBearerToken(token);
    }
    IngestApi ingest = new IngestApi(client);
    QueryApi query = new QueryApi(client);

    MembersChanged joined = new MembersChanged().type(MembersChanged.TypeEnum.MEMBERS_CHANGED)
        .conversationId(CONVERSATION).joined(List.of("alice", "bob/1", "cy ü", "dan", "eve"));
    MessageSent sent = new MessageSent().type(MessageSent.TypeEnum.MESSAGE_SENT).conversationId(CONVERSATION)
        .messageId(MESSAGE).senderId("alice").sentAtMs(1780000000000L).needReadReceipt(true);
    Accepted first = ingest.postEvents(new Events(List.of(new Event(joined), new Event(sent))), null, null);
    MessageRead read = new MessageRead().type(MessageRead.TypeEnum.MESSAGE_READ).conversationId(CONVERSATION)
        .readerId("bob/1").messageIds(List.of(MESSAGE)).readAtMs(1780000004000L);
    Accepted second = ingest.postEvents(new Events(new Event(read)), null, null);
    ConversationRead mark = new ConversationRead().type(ConversationRead.TypeEnum.CONVERSATION_READ)
        .conversationId(CONVERSATION).readerId("cy ü").upToMessageId(MESSAGE);
    Accepted third = ingest.postEvents(new Events(new Event(mark)), null, null);
    String position = third.getPosition();

    Receipt receipt = query.getReceipt(CONVERSATION, MESSAGE, null, null, position, null);
    ReceiptsQuery asked = new ReceiptsQuery().conversationId(CONVERSATION).messageIds(List.of(MESSAGE, "nothing"));
    List<Receipt> receipts = query.queryReceipts(asked, null, null, position, null).getReceipts();
    List<String> unread = new ArrayList<>();
    String cursor = null;
    Receipt ofPage;
    do {
      MembersPage page = query.listMembers(CONVERSATION, MESSAGE, "unread", 1, cursor, null, null, position, null);
      page.getMembers().forEach(member -> unread.add(member.getUserId()));
      cursor = page.getNextCursor();
      ofPage = page.getReceipt();
    } while (cursor != null);
    unread.sort(null);
    ReadMark markOfCy = query.getReadMark(CONVERSATION, "cy ü", null, null, position, null);
    int missing = 0;
    try {
      query.getReceipt(CONVERSATION, "no/thing", null, null, null, null);
    } catch (ApiException error) {
      missing = error.getCode();
    }
    // An answer of a later version with a field that this client does not know.
    Receipt later = Receipt.fromJson("{\"tenant\":\"t\",\"message_id\":\"m\",\"status\":\"ok\",\"new_field\":1}");

    System.out.println("{"
        + "\"accepted\":[" + first.getAccepted() + "," + second.getAccepted() + "," + third.getAccepted() + "],"
        + "\"tenant\":\"" + receipt.getTenant() + "\",\"status\":\"" + receipt.getStatus().getValue() + "\","
        + "\"counts\":[" + receipt.getAudienceCount() + "," + receipt.getReadCount() + "," + receipt.getUnreadCount() + "],"
        + "\"sent_at_ms\":" + receipt.getSentAtMs() + ","
        + "\"query\":[" + receipts.stream().map(one -> "\"" + one.getStatus().getValue() + "\"").collect(Collectors.joining(",")) + "],"
        + "\"unread\":[" + unread.stream().map(id -> "\"" + id + "\"").collect(Collectors.joining(",")) + "],"
        + "\"page_read_count\":" + ofPage.getReadCount() + ","
        + "\"mark\":[\"" + markOfCy.getUpToMessageId() + "\"," + markOfCy.getUpToSentAtMs() + "],"
        + "\"missing\":" + missing + ",\"unknown_field\":\"" + later.getStatus().getValue() + "\"}");
  }
}
