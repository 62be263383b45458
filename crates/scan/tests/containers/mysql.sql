-- MySQL dump 10.19  Distrib 10.11.6-MariaDB, for debian-linux-gnu (x86_64)
DROP TABLE IF EXISTS `wp_options`;
/*!40101 SET character_set_client = utf8 */;
CREATE TABLE `wp_options` (
  `option_id` bigint(20) unsigned NOT NULL AUTO_INCREMENT,
  `option_name` varchar(191) NOT NULL DEFAULT '',
  `option_value` longtext NOT NULL,
  `raw` blob,
  PRIMARY KEY (`option_id`),
  UNIQUE KEY `option_name` (`option_name`)
) ENGINE=InnoDB;
LOCK TABLES `wp_options` WRITE;
INSERT INTO `wp_options` VALUES (1,'siteurl','http://it\'s (a) shop;',NULL),(2,'github_token','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',0x6162),(3,'lines','one\n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',_binary 'a\0b');
INSERT INTO `wp_options` VALUES (4,'hex','',0x206768705f4d6164655570466f72546573747330664b65796d306174583262395177373049436e4e3620);
UNLOCK TABLES;
-- 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
